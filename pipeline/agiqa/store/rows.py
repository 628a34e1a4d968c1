"""Rows: a vector each, known by an image id, with a checksum of both.

A row's CRC-32 is of its image id's 32 bytes and its vector's bytes, little-endian. Ledger
(ledger/segments.py) and packs (packs/pack_layout.py) keep it beside each row and compare it when
the row is read, so that a row is either what was written, or damaged and named.
"""

import math
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from agiqa.core.errors import AgiqaError

Vectors = np.ndarray[Any, np.dtype[Any]]
WIDEST = 1 << 22  # numbers in a vector: 8 MiB a row of float16
BLOCK_BYTES = 8 << 20  # of vectors that are read at a time
CHECKED_BYTES = 512 << 10  # of vectors that are checked at a time: a core's cache holds them
READERS = min(4, os.cpu_count() or 1)  # threads that read and check at once
DTYPES = {"float16": "<f2", "float32": "<f4"}
_HEX = frozenset("0123456789abcdef")


class DamagedRowsError(AgiqaError):
    """Rows that were written cannot be read back; `image_ids` names them."""

    def __init__(self, message: str, image_ids: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.image_ids = tuple(image_ids)


def rows_a_block(width: int, dtype: str) -> int:
    """How many rows are read at a time, to bound the memory."""
    return max(1, BLOCK_BYTES // (width * np.dtype(dtype).itemsize))


@contextmanager
def several_at_once(size: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """Give what maps a function over blocks of `size` bytes in all: several threads if it pays.

    Few results wait to be taken, so that the blocks are not all in memory beside what takes them.
    """
    if size <= BLOCK_BYTES:
        yield map
        return
    with ThreadPoolExecutor(READERS) as pool:

        def mapped(work: Callable[[Any], Any], blocks: Iterable[Any]) -> Iterator[Any]:
            ahead = deque[Future[Any]]()
            for block in blocks:
                ahead.append(pool.submit(work, block))
                if len(ahead) > READERS:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

        yield mapped


def id_bytes(image_ids: Sequence[str]) -> list[bytes]:
    """The 32 bytes of each image id; AgiqaError names one that is not a sha256 in hex."""
    text = "".join(image_ids)
    with suppress(ValueError):
        data = bytes.fromhex(text)
        if data.hex() == text and all(len(image_id) == 64 for image_id in image_ids):
            return [data[start : start + 32] for start in range(0, len(data), 32)]
    wrong = next(i for i in image_ids if len(i) != 64 or not _HEX.issuperset(i))
    raise AgiqaError(
        f"expected image ids that are sha256 in hex (64 characters), found {wrong!r}; "
        "use the image_id column of the images table"
    )


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
    if not (finite := finite_rows(vectors)).all():
        first = image_ids[int(np.argmin(finite))]
        raise AgiqaError(
            f"expected finite vectors, found NaN or infinity for image {first} "
            f"({int((~finite).sum())} of {len(vectors)} rows); nothing of these was stored: "
            "check the model's dtype (bfloat16 values above 65504 overflow float16)"
        )


def finite_rows(vectors: Vectors) -> Vectors:
    """Which rows (N,) of `vectors` (N, ...) have finite numbers alone."""
    flat = vectors.reshape(len(vectors), math.prod(vectors.shape[1:]))
    if flat.dtype == np.float16:  # five times as fast as np.isfinite: the exponent is not all ones
        bits = flat.view(np.uint16) & 0x7C00
        return np.asarray(bits.max(axis=1, initial=0) < 0x7C00)
    return np.asarray(np.isfinite(flat).all(axis=1))


def whole_rows(ids: Sequence[bytes], vectors: Vectors, checksums: Vectors) -> Vectors:
    """Which rows (N,) of `vectors` (N, ...) are finite and fit their checksums (N,)."""
    whole = np.zeros(len(vectors), bool)
    step = max(1, CHECKED_BYTES // max(1, vectors[:1].nbytes))
    for start in range(0, len(vectors), step):
        block = slice(start, start + step)
        computed = np.array(row_checksums(ids[block], vectors[block]), dtype=np.uint32)
        whole[block] = (computed == checksums[block]) & finite_rows(vectors[block])
    return whole
