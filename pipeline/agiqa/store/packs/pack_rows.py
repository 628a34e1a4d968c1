"""Reading a pack's rows, in whichever format: what is whole comes out, what is damaged is named.

A format says where the chunks of vectors lie; they are read here, by plain calls, and
every row is compared with its own checksum. The chunks' checksums, which are the libraries', are
`agiqa cache verify`'s business: they say nothing about a row that its own does not.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.store.durable import disk_errors
from agiqa.store.own_files import open_own
from agiqa.store.packs.pack_layout import (
    ROWS_A_CHUNK,
    row_blocks,
    strange_files,
)
from agiqa.store.rows import DTYPES, DamagedRowsError, Vectors, several_at_once, whole_rows


@dataclass(frozen=True, eq=False)
class PackRows:
    """A pack as a format finds it, its structure as it must be; rows are checked as they are read.

    As a sequence of rows it gives whole ones or DamagedRowsError.
    """

    path: Path
    metadata: Mapping[str, Any]  # checked
    image_id: Vectors  # (N, 32)
    row_crc32: Vectors  # (N,)
    chunks: Sequence[tuple[Path, int] | None]  # of vectors: file, first byte; None: not there whole

    @cached_property
    def image_ids(self) -> tuple[str, ...]:
        """Give the ids of the rows (../row_ids.py)."""
        return tuple(key.tobytes().hex() for key in self.image_id)

    @property
    def by_prompt(self) -> bool:
        """Whether rows are of an image with its own prompt, not of an image alone."""
        return bool(self.metadata.get("row_ids"))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Give the vectors' shape (N, P, D)."""
        return self.metadata["rows"], len(self.metadata["names"]), self.metadata["width"]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Give the numbers' type, float16 or float32, little-endian."""
        return np.dtype(DTYPES[self.metadata["dtype"]])

    def __getitem__(self, rows: slice) -> Vectors:
        vectors, whole = self.read(rows)
        if not whole.all():
            raise self._damaged(rows.start + np.flatnonzero(~whole))
        return vectors

    def everything(self) -> Vectors:
        """Read all rows (N, P, D) in several threads; DamagedRowsError names those not whole."""
        absent = [
            np.arange(self.shape[0])[rows]
            for rows, chunk in zip(self.chunk_rows(), self.chunks, strict=True)
            if chunk is None
        ]
        if absent:  # before memory is taken for what is not there
            raise self._damaged(np.concatenate(absent))
        return self[slice(0, self.shape[0])]

    def blocks(
        self, wanted: Collection[str] | None = None
    ) -> Iterator[tuple[Sequence[str], Vectors]]:
        """Whole rows, or those of the wanted images: image ids, vectors (n, P, D)."""
        for rows in row_blocks(self.shape, self.dtype.itemsize):
            mask = np.array([wanted is None or name in wanted for name in self.image_ids[rows]])
            if mask.any():
                vectors, whole = self.read(rows)
                mask &= whole
                names = [self.image_ids[rows.start + row] for row in np.flatnonzero(mask)]
                yield names, vectors if mask.all() else vectors[mask]

    def chunk_rows(self) -> list[slice]:
        """Give the rows of each chunk as a slice."""
        starts = range(0, self.shape[0], ROWS_A_CHUNK)
        return [slice(start, min(start + ROWS_A_CHUNK, self.shape[0])) for start in starts]

    def read(self, rows: slice) -> tuple[Vectors, Vectors]:
        """Vectors (n, P, D) of rows, and which of them are whole (n,); others mean nothing."""
        vectors = np.empty((rows.stop - rows.start, *self.shape[1:]), self.dtype)
        whole = np.zeros(len(vectors), bool)

        def fill(number: int) -> None:
            start = max(rows.start, number * ROWS_A_CHUNK)
            stop = min(rows.stop, (number + 1) * ROWS_A_CHUNK)
            part = slice(start - rows.start, stop - rows.start)
            if (chunk := self.chunks[number]) is not None:
                with suppress(FileNotFoundError):
                    self._fill_from(chunk, vectors[part], whole[part], start)

        numbers = range(rows.start // ROWS_A_CHUNK, -(-rows.stop // ROWS_A_CHUNK))
        with (
            disk_errors("read the pack", self.path),
            strange_files(self.path),
            several_at_once(vectors.nbytes) as at_once,
        ):
            list(at_once(fill, numbers))
        return vectors, whole

    def _fill_from(
        self, chunk: tuple[Path, int], vectors: Vectors, whole: Vectors, first: int
    ) -> None:
        """Read rows from `first` on that lie in one chunk."""
        file, offset = chunk
        with open_own(file) as opened:
            opened.seek(offset + first % ROWS_A_CHUNK * vectors[0].nbytes)
            if opened.readinto(vectors.reshape(-1).view(np.uint8).data) < vectors.nbytes:
                return
        rows = slice(first, first + len(vectors))
        keys = [key.tobytes() for key in self.image_id[rows]]
        whole[:] = whole_rows(keys, vectors, self.row_crc32[rows])

    def _damaged(self, rows: Vectors) -> DamagedRowsError:
        ids = [self.image_ids[row] for row in rows]
        return DamagedRowsError(
            f"{self.path}: expected {self.shape[0]} whole rows, found {len(ids)} damaged or "
            f"missing (first: row {rows[0]}, image {ids[0]}); run `agiqa extract`, which packs "
            "it again from the ledger",
            ids,
        )
