"""A pack in the other format, with the same metadata, arrays and checksums to the bit.

Converted back it is the same bytes again, since each format writes the same contents the same way.
Rows pass in blocks, each checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.store.packs.pack import FORMATS, is_free, pack_format, put_contents
from agiqa.store.packs.pack_layout import Contents, row_blocks
from agiqa.store.packs.pack_rows import PackRows, open_pack
from agiqa.store.rows import DamagedRowsError, Vectors


def convert_pack(path: Path, target: Path, force: bool = False) -> bool:
    """Write the pack `path` as `target`, in the format that the target's suffix names.

    Args:
        path: the pack; every row is checked.
        target: the new pack. One with the same contents is left as it is.
        force: replace a pack with other contents; nothing else than a pack is ever replaced.

    Returns:
        Whether anything was written.

    Raises:
        AgiqaError: the pack is absent, foreign, newer or damaged, or already of that format; the
            target holds something else; the disk fails, which leaves the target as it was.
    """
    if pack_format(path) is pack_format(target):
        other = next(suffix for suffix in FORMATS if suffix != path.suffix)
        raise AgiqaError(
            f"{target}: expected a name that ends in {other}, found {target.suffix}, the format "
            f"that {path} has already; copy it as it is, or name a *{other}"
        )
    with open_pack(path) as pack:
        if not is_free(target):
            if _is_same(pack, target):
                return False
            if not force:
                raise AgiqaError(
                    f"{target}: expected nothing there, found something that differs from {path}; "
                    "replace it with --force, or name another target"
                )
        put_contents(target, Contents(pack.metadata, pack.stored.image_id, _Checked(pack)))
    return True


@dataclass(frozen=True)
class _Checked:
    """A pack's vectors as what another is written from; DamagedRowsError for damaged ones."""

    pack: PackRows

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pack.stored.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.pack.stored.dtype

    def __getitem__(self, rows: slice) -> Vectors:
        block = self.pack.block(rows)
        if block.damaged:
            raise DamagedRowsError(
                f"{self.pack.path}: expected whole rows, found {len(block.damaged)} damaged or "
                f"missing (first: image {block.damaged[0]}); run `agiqa extract`, which packs it "
                "again from the ledger",
                block.damaged,
            )
        return block.vectors


def _is_same(pack: PackRows, target: Path) -> bool:
    """Whether the target is a whole pack with the same contents."""
    ours = _Checked(pack)
    try:
        with open_pack(target) as other:
            theirs = _Checked(other)
            return (
                other.metadata == pack.metadata
                and other.image_ids == pack.image_ids
                and np.array_equal(other.stored.row_crc32, pack.stored.row_crc32)
                and all(
                    np.array_equal(ours[rows], theirs[rows])
                    for rows in row_blocks(ours.shape, ours.dtype.itemsize)
                )
            )
    except AgiqaError:  # no pack, or a damaged one
        return False
