"""Reading rows of a section: whole chunks in bulk, every row compared with its journal checksum.

`Section` reads through here. Damage is found row by row and reported, never returned as data; a
chunk that fails is read alone, so its neighbours stay readable.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import zarr
from zarr.storage import LocalStore

from agiqa.feature_store.chunks import (
    ROWS_A_CHUNK,
    Vectors,
    id_bytes,
    open_array,
    read_block,
    row_checksums,
)
from agiqa.feature_store.ledger.journal import Row

CHUNKS_A_READ = 16  # bounds the memory of a read beside its result: 32 MiB at 4096 float16

Positions: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


def read_rows(
    folder: Path, ids: Sequence[str], rows: Sequence[Row], width: int, dtype: str
) -> tuple[Vectors, list[str]]:
    """Read the vectors (N, width) of `ids`, which lie at `rows` of the array in `folder`.

    Also returns the ids of the damaged ones among them, whose vectors mean nothing.
    """
    positions = np.array([row.position for row in rows], dtype=np.int64)
    vectors = np.full((len(ids), width), np.nan, dtype=dtype)
    array = open_array(LocalStore(folder, read_only=True), mode="r")
    for chunks in _runs(np.unique(positions // ROWS_A_CHUNK)):
        _read_run(array, chunks, positions, vectors)
    checksums = row_checksums(id_bytes(ids), vectors)
    pairs = zip(ids, rows, checksums, strict=True)
    return vectors, [image_id for image_id, row, found in pairs if row.crc32 != found]


def _runs(chunks: Positions) -> list[tuple[int, int]]:
    """Join neighbouring chunk numbers into ranges of at most CHUNKS_A_READ."""
    runs: list[tuple[int, int]] = []
    for chunk in chunks.tolist():
        if runs and runs[-1][1] == chunk and chunk - runs[-1][0] < CHUNKS_A_READ:
            runs[-1] = (runs[-1][0], chunk + 1)
        else:
            runs.append((chunk, chunk + 1))
    return runs


def _read_run(
    array: zarr.Array[Any], chunks: tuple[int, int], positions: Positions, vectors: Vectors
) -> None:
    """Fill the rows of `vectors` in a range of chunks; those of damaged chunks stay NaN."""
    start, stop = chunks[0] * ROWS_A_CHUNK, chunks[1] * ROWS_A_CHUNK
    block = read_block(array, start, stop)
    if block is None and chunks[1] - chunks[0] > 1:  # find the damaged ones
        for chunk in range(*chunks):
            _read_run(array, (chunk, chunk + 1), positions, vectors)
    elif block is not None and block.shape[1:] == vectors.shape[1:]:
        places = np.flatnonzero((positions >= start) & (positions < start + len(block)))
        vectors[places] = block[positions[places] - start]
