"""Memory maps of large packs, so that from the second use on a pack is there at once.

The first reading of a large pack lays its vectors, checked, as one flat file into the user's cache
folder; later ones map that file. Its name is a digest of what it must hold (the pack's metadata,
image ids and row checksums), its last four bytes are the CRC-32C of the others, compared at every
use (some GB/s). So it is never stale, a damaged one is laid anew, and any of them may be deleted at
any time. Where there is no room for one, the pack is read into memory.

    <maps folder>/<sha256>.vectors     little-endian (N, P, D), then the CRC-32C
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import google_crc32c
import numpy as np
import platformdirs

from agiqa.store.rows import DTYPES, Vectors

LARGE = 64 << 20  # bytes of vectors from which on a map pays
UNUSED_DAYS = 30.0  # after which a map is deleted when another one is laid
_PART = 32 << 20  # bytes that are summed at a time
_SUFFIX = ".vectors"

logger = logging.getLogger(__name__)


def maps_folder() -> Path:
    """Where maps lie: $AGIQA_MAPS, or `maps` in the user's cache folder; best a local disk."""
    if chosen := os.environ.get("AGIQA_MAPS"):
        return Path(chosen).expanduser()
    return platformdirs.user_cache_path("agiqa") / "maps"


def load(
    key: Iterable[bytes | memoryview],
    shape: tuple[int, ...],
    dtype: str,
    fill: Callable[[Vectors], None],
) -> Vectors:
    """Vectors of this shape and dtype that `fill` gives, read-only from a map where they are large.

    Args:
        key: all that says what the vectors are.
        shape: (N, P, D).
        dtype: float16 or float32.
        fill: writes the vectors into an array of that shape, or raises.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size >= LARGE:
        digest = hashlib.sha256(f"{shape} {dtype}\n".encode())
        for part in key:
            digest.update(part)
        path = maps_folder() / f"{digest.hexdigest()}{_SUFFIX}"
        with contextlib.suppress(OSError):  # no room, not allowed: then without
            if (found := _open(path, shape, dtype)) is None and _lay(path, shape, dtype, fill):
                found = _open(path, shape, dtype)
            if found is not None:
                return found
    vectors = np.empty(shape, dtype=dtype)
    fill(vectors)
    return vectors


def _open(path: Path, shape: tuple[int, ...], dtype: str) -> Vectors | None:
    """The map at `path`, or None where there is none or it is damaged."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if not path.is_file():
        return None
    if path.stat().st_size == size + 4:
        whole = np.memmap(path, dtype=np.uint8, mode="r")
        if _crc32c(whole[:size]) == int.from_bytes(whole[size:].tobytes(), "little"):
            with contextlib.suppress(OSError):
                os.utime(path)
            return np.asarray(whole[:size]).view(DTYPES[dtype]).reshape(shape)
    logger.warning("%s: expected a whole memory map, found damage; it is laid anew", path)
    return None


def _lay(path: Path, shape: tuple[int, ...], dtype: str, fill: Callable[[Vectors], None]) -> bool:
    """Make the map `path`; False where the disk has not twice the room. What `fill` raises passes.

    The file is reserved before it is mapped: to write to a map on a full disk kills the process.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_unused(path.parent)
    if not hasattr(os, "posix_fallocate") or shutil.disk_usage(path.parent).free < 2 * size:
        return False
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
    aside = Path(name)
    try:
        with os.fdopen(descriptor, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size + 4)
            vectors = np.memmap(file, dtype=DTYPES[dtype], mode="r+", shape=shape)
            fill(vectors)
            check = _crc32c(vectors.reshape(-1).view(np.uint8))
            vectors.flush()
            file.seek(size)
            file.write(check.to_bytes(4, "little"))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return True


def _crc32c(data: np.ndarray) -> int:
    found = 0
    for start in range(0, len(data), _PART):
        found = google_crc32c.extend(found, np.asarray(data[start : start + _PART]))
    return found


def _remove_unused(folder: Path) -> None:
    oldest = time.time() - UNUSED_DAYS * 86400
    for path in (*folder.glob(f"*{_SUFFIX}"), *folder.glob(".*.partial")):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()
