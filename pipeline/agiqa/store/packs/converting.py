"""A pack in the other format, with the same metadata, arrays and checksums to the bit.

Converted back it is the same bytes again, since each format writes the same contents the same way.
Rows pass in blocks, each checked.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.store.packs.pack import FORMATS, is_free, open_pack, pack_format, put_contents
from agiqa.store.packs.pack_layout import Contents, row_blocks
from agiqa.store.packs.pack_rows import PackRows


def convert_pack(path: Path, target: Path, force: bool = False) -> bool:
    """Write the pack `path` as `target`, in the other format; whether anything was written.

    A target with the same contents is left as it is, a pack with others replaced by `force`;
    nothing else than a pack ever is. AgiqaError where the pack is absent, foreign, newer, damaged
    or already of that format; or the disk fails, which leaves the target as it was.
    """
    if pack_format(path) is pack_format(target):
        suffix = next(suffix for suffix in FORMATS if suffix != path.suffix)
        raise AgiqaError(
            f"{target}: expected a name that ends in {suffix}, found {target.suffix}, the format "
            f"that {path} has already; copy it as it is, or name a *{suffix}"
        )
    pack = open_pack(path)
    if not is_free(target):
        if _is_same(pack, target):
            return False
        if not force:
            raise AgiqaError(
                f"{target}: expected nothing there, found something that differs from {path}; "
                "replace it with --force, or name another target"
            )
    put_contents(target, Contents(pack.metadata, pack.stored.image_id, pack))
    return True


def _is_same(pack: PackRows, target: Path) -> bool:
    """Whether the target is a whole pack with the same contents."""
    try:
        existing = open_pack(target)
        return (
            existing.metadata == pack.metadata
            and existing.image_ids == pack.image_ids
            and np.array_equal(existing.stored.row_crc32, pack.stored.row_crc32)
            and all(
                np.array_equal(pack[rows], existing[rows])
                for rows in row_blocks(pack.shape, pack.dtype.itemsize)
            )
        )
    except AgiqaError:  # no pack, or a damaged one
        return False
