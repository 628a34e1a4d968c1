"""Vectors in a Zarr v3 array: chunks of 256 rows with crc32c, and a checksum for each row.

Ledger and pack share this layout. Zarr returns the fill value where a chunk's file is missing or
empty, without a word; so the fill value is NaN, which no valid row holds, and each row's CRC-32
(of its image id's 32 bytes and its vector's bytes, little-endian) is kept elsewhere and compared.
Chunks are read and written here without Zarr, with the bytes that it would write: it never fsyncs,
changes threads twice for each, and when reading obeys whatever codec, shape and store the metadata
names, which may be a stranger's.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore

from agiqa.core.errors import AgiqaError
from agiqa.store.durable import write_file
from agiqa.store.own_files import open_own

Vectors = np.ndarray[Any, np.dtype[Any]]
ROWS_A_CHUNK = 256  # 4 MiB at 2 x 4096 float16: few files for DVC, little to rewrite
IDS_A_CHUNK = 65536  # for image ids and checksums: 2 MiB and 256 KiB
WIDEST = 1 << 22  # numbers in a vector: 8 MiB a row of float16
DTYPES = {"float16": "<f2", "float32": "<f4"}
_HEX = frozenset("0123456789abcdef")


class DamagedRowsError(AgiqaError):
    """Rows that were written cannot be read back; `image_ids` names them."""

    def __init__(self, message: str, image_ids: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.image_ids = tuple(image_ids)


def create_array(
    folder: Path,
    shape: tuple[int, ...],
    dtype: str,
    *,
    chunk_rows: int = ROWS_A_CHUNK,
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


def write_chunk(folder: Path, number: int, block: Vectors) -> None:
    """Replace chunk `number` of the array in `folder` by `block` (256, D), atomically and durably.

    As Zarr's specification has it: little-endian bytes, then their CRC-32C, little-endian.
    """
    rows = np.ascontiguousarray(block, dtype=block.dtype.newbyteorder("<"))
    check = int(google_crc32c.value(rows.view(np.uint8))).to_bytes(4, "little")
    write_file(folder / f"c.{number}.0", rows.data, check)


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


def id_bytes(image_ids: Sequence[str]) -> list[bytes]:
    """The 32 bytes of each image id; AgiqaError names one that is not a sha256 in hex."""
    for image_id in image_ids:
        if len(image_id) != 64 or not _HEX.issuperset(image_id):
            raise AgiqaError(
                f"expected image ids that are sha256 in hex (64 characters), found {image_id!r}; "
                "use the image_id column of the images table"
            )
    return [bytes.fromhex(image_id) for image_id in image_ids]


def row_checksums(ids: Sequence[bytes], vectors: Vectors) -> list[int]:
    """The CRC-32 of each row of `vectors` (N, …), begun with its image id."""
    rows = np.ascontiguousarray(vectors, dtype=vectors.dtype.newbyteorder("<"))
    flat = rows.reshape(len(rows), math.prod(rows.shape[1:])).view(np.uint8)
    return [zlib.crc32(row.data, zlib.crc32(key)) for key, row in zip(ids, flat, strict=True)]


def check_vectors(
    image_ids: Sequence[str], vectors: Vectors, width: tuple[int, ...], dtype: str
) -> None:
    """AgiqaError unless `vectors` is (len(image_ids), *width) of `dtype`, every number finite."""
    if vectors.dtype != np.dtype(dtype):
        raise AgiqaError(
            f"expected vectors of dtype {dtype}, found {vectors.dtype}; "
            "cast them in the extractor, where the fingerprint states the dtype"
        )
    if vectors.shape != (len(image_ids), *width):
        raise AgiqaError(
            f"expected vectors of shape {(len(image_ids), *width)}, found {vectors.shape}; "
            "give one row of the declared width for each image id"
        )
    if not np.isfinite(vectors).all():
        finite = np.isfinite(vectors).all(axis=tuple(range(1, vectors.ndim)))
        first = image_ids[int(np.argmin(finite))]
        raise AgiqaError(
            f"expected finite vectors, found NaN or infinity for image {first} "
            f"({int((~finite).sum())} of {len(vectors)} rows); nothing of these was stored: "
            "check the model's dtype (bfloat16 values above 65504 overflow float16)"
        )
