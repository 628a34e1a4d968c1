"""Segments: some thousand rows of a shelf as one immutable object of the shared ledger.

    <sha256 of its bytes>-<rows>.safetensors
        vectors    (N, D) float16 or float32
        row_crc32  (N,) uint32, as in a pack
        image_id   (N, 32) uint8, always the last 32 N bytes
        metadata   format, layout, the fingerprint's digest

safetensors holds numbers and nothing that could run. The name tells whether the bytes are whole,
and where in them the ids are, so that a few bytes of each segment say what all of them hold.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from agiqa.core.errors import AgiqaError
from agiqa.core.trees import parse_json
from agiqa.store.chunks import DTYPES, Vectors, id_bytes, row_checksums

ROWS_A_SEGMENT = 4096  # 32 MiB at 4096 float16
FORMAT, LAYOUT = "agiqa-segment", "1"
ID_BYTES = 32
MOST_ROWS = 1 << 16
LONGEST_HEADER = 4096
_NAME = re.compile(r"([0-9a-f]{64})-([1-9][0-9]{0,6})\.safetensors")


class SegmentError(AgiqaError):
    """A segment that is damaged, foreign, or of another shelf."""


def build(digest: str, ids: Sequence[str], vectors: Vectors) -> tuple[str, bytes]:
    """The name and the bytes of a segment: rows (N, D) of the shelf with this digest."""
    keys = id_bytes(ids)
    arrays = {
        "vectors": np.ascontiguousarray(vectors, dtype=DTYPES[str(vectors.dtype)]),
        "row_crc32": np.array(row_checksums(keys, vectors), dtype="<u4"),
        "image_id": np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, ID_BYTES),
    }
    data = save(arrays, {"format": FORMAT, "layout": LAYOUT, "fingerprint": digest})
    if not data.endswith(b"".join(keys)):  # safetensors puts narrow types last
        raise RuntimeError("safetensors laid the image ids elsewhere than at the end")
    return f"{hashlib.sha256(data).hexdigest()}-{len(ids)}.safetensors", data


def rows_of(name: str) -> int | None:
    """How many rows a segment of this name has; None where it is no segment's."""
    match = _NAME.fullmatch(name)
    return int(match[2]) if match else None


def is_plausible(name: str, size: int, width: int, dtype: str) -> bool:
    """Whether a segment of that name may have so many bytes: its rows, and a header."""
    rows = rows_of(name) or 0
    left = size - rows * (ID_BYTES + 4 + width * np.dtype(dtype).itemsize)
    return 0 < left <= LONGEST_HEADER and rows <= MOST_ROWS


def ids_of(tail: bytes) -> list[str]:
    """The image ids in the last bytes of a segment."""
    return [tail[at : at + ID_BYTES].hex() for at in range(0, len(tail), ID_BYTES)]


def parse(name: str, data: bytes, digest: str, width: int, dtype: str) -> tuple[list[str], Vectors]:
    """The ids and vectors (N, width) in a segment's bytes; SegmentError unless all is as it was."""
    if hashlib.sha256(data).hexdigest() != name.partition("-")[0]:
        raise SegmentError(f"{len(data)} bytes that fail their checksum")
    try:
        arrays = load(data)
        header = data[8 : 8 + int.from_bytes(data[:8], "little")]
        metadata = parse_json(header, strict=True)["__metadata__"] or {}
        vectors, checksums, keys = arrays["vectors"], arrays["row_crc32"], arrays["image_id"]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise SegmentError(f"something else than rows ({type(error).__name__})") from error
    if metadata != {"format": FORMAT, "layout": LAYOUT, "fingerprint": digest}:
        raise SegmentError("rows of another layout or fingerprint")
    if keys.shape != (rows_of(name), ID_BYTES) or keys.dtype != np.uint8:
        raise SegmentError(f"image ids of shape {keys.shape}, {keys.dtype}")
    if vectors.shape != (len(keys), width) or vectors.dtype != np.dtype(dtype):
        raise SegmentError(f"vectors of shape {vectors.shape}, {vectors.dtype}")
    if checksums.shape != (len(keys),) or checksums.dtype != np.uint32:
        raise SegmentError(f"checksums of shape {checksums.shape}, {checksums.dtype}")
    if not np.isfinite(vectors).all():
        raise SegmentError("NaN or infinity")
    if row_checksums([row.tobytes() for row in keys], vectors) != checksums.tolist():
        raise SegmentError("rows that fail their checksums")
    return ids_of(keys.tobytes()), vectors
