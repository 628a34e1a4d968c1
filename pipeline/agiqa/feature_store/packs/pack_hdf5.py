"""Packs as HDF5 files: chunks of 256 rows with fletcher32, metadata as JSON in a byte data set.

    /                                  attributes format and layout
    /metadata                          (M,) uint8, the metadata as JSON (attributes end at 64 KiB)
    /vectors, /image_id, /row_crc32    the arrays

Plain `h5py.File` reads it. HDF5 crashes the whole process where a write fails, so that it never
meets one: it writes through `_Sink`, which reserves the space first and keeps errors for itself.
HDF5's own checksums are of chunks alone; so the file ends with the sha256 of all bytes before
(`TRAILER`), where HDF5 does not look.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from agiqa.feature_store.chunks import DTYPES, Vectors
from agiqa.feature_store.packs.pack_layout import (
    ARRAYS,
    FORMAT,
    Contents,
    PackError,
    Stored,
    damaged,
)
from agiqa.trees import parse_json

TRAILER = b"\nsha256 %s\n"


class _Sink(io.FileIO):
    """A file to HDF5 that never fails; `failure` is what really happened first."""

    def __init__(self, path: Path, reserve: int) -> None:
        super().__init__(path, "w+")
        self.failure: OSError | None = None
        self._length = 0  # of what was written; space is reserved beyond it
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self.fileno(), 0, reserve)

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; the end is that of what was written."""
        if whence == os.SEEK_END:
            return super().seek(self._length + place)
        return super().seek(place, whence)

    def write(self, data: Any) -> int:
        """Write all of `data`, or drop it once the disk has failed."""
        view = memoryview(data).cast("B")
        written = 0
        try:
            while self.failure is None and written < len(view):
                written += super().write(view[written:]) or 0
        except OSError as error:
            self.failure = error
        self._length = max(self._length, self.tell())
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Note the length; what was reserved beyond it goes at the end."""
        self._length = self.tell() if size is None else size
        return self._length

    def finish(self) -> None:
        """Give the file its length, and at its end the checksum of what it holds."""
        super().truncate(self._length)
        super().seek(0)
        trailer = TRAILER % hashlib.file_digest(self, "sha256").hexdigest().encode()
        while trailer:
            trailer = trailer[super().write(trailer) :]


def write(path: Path, contents: Contents) -> None:
    """Write a new file; the caller makes it durable and moves it into place."""
    size = np.dtype(contents.metadata["dtype"]).itemsize * math.prod(contents.shape)
    with _Sink(path, size + size // 64 + (1 << 16)) as sink:
        try:
            with h5py.File(sink, "w") as file:
                _fill(file, contents)
        except Exception as error:  # HDF5 missed what the disk did not take
            raise sink.failure or error from error
        if sink.failure:
            raise sink.failure
        sink.finish()


def _fill(file: h5py.File, contents: Contents) -> None:
    file.attrs["format"] = FORMAT
    file.attrs["layout"] = contents.metadata["layout"]
    text = json.dumps(contents.metadata).encode()
    metadata = np.frombuffer(text, dtype=np.uint8)
    file.create_dataset("metadata", data=metadata, chunks=metadata.shape, fletcher32=True)
    vectors = _create(file, "vectors", contents.shape, DTYPES[contents.metadata["dtype"]])
    for rows, block in contents.blocks():
        vectors[rows] = block
    for name in ("image_id", "row_crc32"):
        values = getattr(contents, name)
        _create(file, name, values.shape, values.dtype.str)[...] = values


def _create(file: h5py.File, name: str, shape: tuple[int, ...], dtype: str) -> h5py.Dataset:
    return file.create_dataset(
        name,
        shape=shape,
        dtype=dtype,
        chunks=(min(ARRAYS[name], shape[0]), *shape[1:]),
        fletcher32=True,
        fillvalue=np.nan if name == "vectors" else None,
        track_times=False,
    )


def read_metadata(path: Path) -> Mapping[str, Any]:
    """The metadata in the file at `path`, unchecked; PackError where it is no pack in HDF5."""
    try:
        with h5py.File(path, "r") as file:
            found = {key: file.attrs[key] for key in ("format", "layout") if key in file.attrs}
            if found.get("format") != FORMAT or "metadata" not in file:
                return {"format": str(found.get("format", "unknown HDF5"))}
            metadata: dict[str, Any] = parse_json(file["metadata"][...].tobytes())
            return metadata
    except FileNotFoundError:
        reason = "nothing there"
    except OSError as error:
        if error.errno is not None:  # the disk's own, not HDF5's
            raise
        reason = "a file that HDF5 cannot read"
    except Exception:  # HDF5 has many ways to reject bytes
        reason = "damaged metadata"
    raise PackError(
        f"{path}: expected an HDF5 pack of agiqa, found {reason}; "
        "name the pack that `agiqa extract` wrote, or run it again"
    )


@contextmanager
def opened(path: Path) -> Iterator[Stored]:
    """Give the arrays of a pack whose metadata has been checked; rows are not checked yet."""
    with h5py.File(path, "r") as file:
        for name in ARRAYS:
            if not isinstance(file.get(name), h5py.Dataset):
                raise damaged(path, f"no data set {name}")
        everything = slice(None)
        yield Stored(
            image_id=_read(path, file, "image_id", everything),
            row_crc32=_read(path, file, "row_crc32", everything),
            shape=file["vectors"].shape,
            dtype=file["vectors"].dtype,
            read=lambda rows: _read(path, file, "vectors", rows),
        )


def _read(path: Path, file: h5py.File, name: str, rows: slice) -> Vectors:
    try:
        return np.asarray(file[name][rows])
    except Exception as error:  # HDF5 has many ways to reject bytes
        raise damaged(path, f"a data set {name} with a chunk that fails its checksum") from error


def structure_damage(path: Path, metadata: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """What is wrong anywhere in the file, in bytes from which nothing is read, too."""
    del metadata
    left, found = path.stat().st_size - len(TRAILER % bytes(64)), hashlib.sha256()
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            found.update(block)
            left -= len(block)
        if file.read() == TRAILER % found.hexdigest().encode():
            return []
    return [(path, "its bytes do not give the sha256 at its end")]
