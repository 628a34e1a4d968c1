"""Saving the rows of a chunk that fails its own checksum: those whose row checksum still fits.

One flipped bit makes Zarr refuse 256 rows, of which 255 are as they were: each has a checksum in
the journal. Only a repair reads past Zarr like this; reading refuses the whole chunk.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from agiqa.store.chunks import (
    DTYPES,
    ROWS_A_CHUNK,
    Vectors,
    id_bytes,
    row_checksums,
    write_chunk,
)
from agiqa.store.ledger.journal import Row
from agiqa.store.own_files import open_own


def rescue_chunk(array: Path, chunk: int, rows: Mapping[str, Row], width: int, dtype: str) -> int:
    """Write a damaged chunk anew with those of `rows` that are whole; the number of these.

    For the section's writer, under its lock. `rows` are the valid ones of this chunk, by image id;
    the places of the others become NaN. 0, and nothing is changed, where none is whole.
    """
    path = array / f"c.{chunk}.0"
    row_bytes = width * np.dtype(dtype).itemsize
    try:
        with open_own(path) as file:
            there = min(os.fstat(file.fileno()).st_size, ROWS_A_CHUNK * row_bytes)
            if there < row_bytes:
                return 0
            block = _raw(file.read(there), width, dtype)
    except FileNotFoundError:
        return 0
    first = chunk * ROWS_A_CHUNK
    places = [row.position - first for row in rows.values()]
    found = row_checksums(id_bytes(list(rows)), block[places])
    pairs = zip(places, rows.values(), found, strict=True)
    whole = [place for place, row, crc32 in pairs if row.crc32 == crc32]
    if whole:
        kept = np.full_like(block, np.nan)
        kept[whole] = block[whole]
        write_chunk(array, chunk, kept)
    return len(whole)


def _raw(data: bytes, width: int, dtype: str) -> Vectors:
    """The chunk's rows (256, width) past its checksum; what the file lacks is NaN."""
    values = np.full((ROWS_A_CHUNK, width), np.nan, dtype=DTYPES[dtype])
    count = min(len(data) // values.itemsize, values.size)
    there = np.frombuffer(data, dtype=DTYPES[dtype], count=count)
    values.reshape(-1)[: len(there)] = there
    return values
