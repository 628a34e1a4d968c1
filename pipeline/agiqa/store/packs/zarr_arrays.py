"""A pack's arrays as Zarr v3 has them: what their zarr.json must say, and their chunks.

Zarr's metadata has no checksum. But all of ours follows from shape, dtype and chunk, so whatever
reads a pack compares every word of it with what it must be, and no flipped bit passes. Chunks are
read without Zarr, which obeys whatever codec, shape and store the metadata names, and those may be
a stranger's.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore

from agiqa.store.own_files import open_own, read_json
from agiqa.store.packs.pack_layout import MOST_JSON
from agiqa.store.rows import DTYPES, Vectors

_SHOWN = 200  # characters of a value in a message
# Fields that may be left out, where they say nothing.
EMPTY: Mapping[str, object] = {
    "attributes": {},
    "storage_transformers": [],
    "dimension_names": None,
}


def expected_metadata(
    shape: tuple[int, ...], dtype: str, chunk_rows: int, fill_value: float | str
) -> dict[str, Any]:
    """The metadata of an array of `create_array`, without the fields in `EMPTY`."""
    endian: dict[str, Any] = {"name": "bytes"}
    if np.dtype(dtype).itemsize > 1:
        endian["configuration"] = {"endian": "little"}
    chunks = {"chunk_shape": [chunk_rows, *shape[1:]]}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": str(np.dtype(dtype).newbyteorder("=")),
        "chunk_grid": {"name": "regular", "configuration": chunks},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": fill_value,
        "codecs": [endian, {"name": "crc32c"}],
    }


def metadata_damage(folder: Path, expected: Mapping[str, Any]) -> str | None:
    """What is wrong with `folder`/zarr.json, in words; None where nothing is.

    OSError for a disk that cannot be read; StrangeFileError for a link, pipe or device.
    """
    tree, wrong = read_json(folder / "zarr.json", MOST_JSON)
    if tree is None:
        return wrong
    for field, value in expected.items():
        if (text := json.dumps(tree.get(field))) != json.dumps(value):
            return f"{field} is {text[:_SHOWN]}, not {json.dumps(value)}"
    for field, value in tree.items():
        if field not in expected and (field not in EMPTY or value != EMPTY[field]):
            return f"has a field {field[:_SHOWN]!r} that no array of agiqa has"
    return None


def create_array(
    folder: Path,
    shape: tuple[int, ...],
    dtype: str,
    *,
    chunk_rows: int,
    fill_value: float | None = None,
) -> zarr.Array[Any]:
    """Create an empty array in `folder`: chunks with crc32c, all in one flat folder."""
    return zarr.create_array(
        LocalStore(folder),
        shape=shape,
        dtype=dtype,
        chunks=(chunk_rows, *shape[1:]),
        compressors=Crc32cCodec(),
        fill_value=fill_value,
        chunk_key_encoding={"name": "default", "separator": "."},
    )


def read_chunk(file: Path, shape: tuple[int, ...], dtype: str) -> Vectors | None:
    """The chunk in `file`, read-only; None where it is missing, of another size, or damaged.

    Only what must be there is read, whatever size the file has. OSError passes, a disk that cannot
    be read now says nothing about the rows; so does StrangeFileError for a link or a pipe.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        with open_own(file) as opened:
            if os.fstat(opened.fileno()).st_size != size + 4:
                return None
            data = opened.read(size + 4)
    except FileNotFoundError:
        return None
    rows = np.frombuffer(data, dtype=np.uint8)
    if len(rows) != size + 4 or google_crc32c.value(rows[:size]) != int.from_bytes(
        data[size:], "little"
    ):
        return None
    return rows[:size].view(DTYPES.get(dtype, dtype)).reshape(shape)
