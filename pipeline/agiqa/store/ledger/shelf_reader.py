"""Reading rows of a section: whole chunks, every row compared with its journal checksum.

`Section` reads through here. Damage is found row by row and reported, never returned as data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from agiqa.store.chunks import (
    ROWS_A_CHUNK,
    Vectors,
    id_bytes,
    read_chunk,
    row_checksums,
)
from agiqa.store.ledger.journal import Row

BYTES_A_READ = 32 << 20  # of vectors, where 256 rows are not more

Positions: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


def rows_a_read(width: int, dtype: str) -> int:
    """How many rows of a shelf are read at a time, to bound the memory: whole chunks."""
    chunk_bytes = ROWS_A_CHUNK * width * np.dtype(dtype).itemsize
    return max(1, BYTES_A_READ // chunk_bytes) * ROWS_A_CHUNK


def read_rows(
    folder: Path, ids: Sequence[str], rows: Sequence[Row], width: int, dtype: str
) -> tuple[Vectors, list[str]]:
    """Read the vectors (N, width) of `ids`, which lie at `rows` of the array in `folder`.

    Also returns the ids of the damaged ones among them, whose vectors mean nothing. Where no chunk
    is whole, the vectors take no memory, whatever width the shelf claims to have.
    """
    positions = np.array([row.position for row in rows], dtype=np.int64)
    vectors: Vectors | None = None
    for chunk in np.unique(positions // ROWS_A_CHUNK).tolist():
        block = read_chunk(folder / f"c.{chunk}.0", (ROWS_A_CHUNK, width), dtype)
        if block is not None:
            if vectors is None:
                vectors = np.full((len(ids), width), np.nan, dtype=dtype)
            places = np.flatnonzero(positions // ROWS_A_CHUNK == chunk)
            vectors[places] = block[positions[places] - chunk * ROWS_A_CHUNK]
    if vectors is None:
        return np.broadcast_to(np.array(np.nan, dtype=dtype), (len(ids), width)), list(ids)
    checksums = row_checksums(id_bytes(ids), vectors)
    pairs = zip(ids, rows, checksums, strict=True)
    return vectors, [image_id for image_id, row, crc32 in pairs if row.crc32 != crc32]
