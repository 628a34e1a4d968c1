"""Reading a pack block by block: what is whole comes out, what is damaged is named.

`read_pack` wants every row of a pack; merging takes whatever rows are good. Memory is that of the
image ids and one block.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agiqa.store.durable import disk_errors
from agiqa.store.packs.pack import pack_format, read_pack_metadata
from agiqa.store.packs.pack_layout import ROWS_A_CHUNK, PackError, Stored, image_ids, row_blocks
from agiqa.store.rows import Vectors, whole_rows


class Block(NamedTuple):
    """Some rows of a pack, in its order."""

    image_ids: list[str]
    vectors: Vectors  # (n, P, D), each row whole
    damaged: list[str]  # image ids of the others


@dataclass(frozen=True, eq=False)
class PackRows:
    """An open pack."""

    path: Path
    metadata: Mapping[str, Any]  # checked
    image_ids: tuple[str, ...]
    stored: Stored  # unchecked

    def blocks(self, wanted: Collection[str] | None = None) -> Iterator[Block]:
        """The rows, or those of the wanted images; every row is compared with its checksum."""
        for rows in row_blocks(self.stored.shape, self.stored.dtype.itemsize):
            ids = self.image_ids[rows]
            if wanted is None or any(name in wanted for name in ids):
                yield self.block(rows, wanted)

    def block(self, rows: slice, wanted: Collection[str] | None = None) -> Block:
        """The rows of a slice, or those of the wanted images."""
        ids = self.image_ids[rows]
        places = [p for p, name in enumerate(ids) if wanted is None or name in wanted]
        with disk_errors("read the pack", self.path):
            found = self._read(rows)[places]
        return self._checked(rows.start + np.array(places, dtype=np.int64), found)

    def _read(self, rows: slice) -> Vectors:
        """Rows (n, P, D); those of chunks that cannot be read are NaN."""
        try:
            return self.stored.read(rows)
        except PackError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno is not None:
                raise error.__cause__ from None  # the disk's own, not HDF5's word for damage
        if rows.stop - rows.start <= ROWS_A_CHUNK:
            shape = (rows.stop - rows.start, *self.stored.shape[1:])
            return np.full(shape, np.nan, self.stored.dtype)
        cuts = range(rows.start, rows.stop, ROWS_A_CHUNK)  # find the damaged chunks
        return np.concatenate(
            [self._read(slice(cut, min(cut + ROWS_A_CHUNK, rows.stop))) for cut in cuts]
        )

    def _checked(self, places: Vectors, block: Vectors) -> Block:
        ids = [self.image_ids[place] for place in places.tolist()]
        keys = [bytes.fromhex(name) for name in ids]
        good = whole_rows(keys, block, self.stored.row_crc32[places])
        whole = [name for name, fine in zip(ids, good, strict=True) if fine]
        bad = [name for name, fine in zip(ids, good, strict=True) if not fine]
        return Block(whole, block[good], bad)


@contextmanager
def open_pack(path: Path) -> Iterator[PackRows]:
    """Open a pack to read its rows.

    PackError where it is absent, foreign, of a newer layout, or damaged in what all rows need:
    metadata, image ids, checksums.
    """
    metadata = read_pack_metadata(path)
    with ExitStack() as stack:
        with disk_errors("read the pack", path):
            stored = stack.enter_context(pack_format(path).opened(path, metadata))
            ids = image_ids(path, stored)
        yield PackRows(path, metadata, ids, stored)
