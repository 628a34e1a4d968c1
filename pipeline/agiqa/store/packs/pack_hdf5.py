"""Packs as HDF5 files: chunks of 256 rows with fletcher32, metadata as JSON in a byte data set.

    /                                  attributes format and layout
    /metadata                          (M,) uint8, the metadata as JSON (attributes end at 64 KiB)
    /vectors, /image_id, /row_crc32    the arrays

Plain `h5py.File` reads it. HDF5 crashes the whole process where a write fails, so that it never
meets one: it writes through `_Sink`, which reserves the space first and keeps errors for itself.
HDF5's own checksums are of chunks alone; so the file ends with the sha256 of all bytes before
(`TRAILER`), where HDF5 does not look.
"""

import hashlib
import io
import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from agiqa.core.errors import AgiqaError, one_line
from agiqa.core.trees import parse_json
from agiqa.store.files import open_own
from agiqa.store.packs.pack_layout import (
    ARRAYS,
    FORMAT,
    MOST_JSON,
    Contents,
    PackError,
    PackRows,
    array_shapes,
    damaged,
    no_pack,
)
from agiqa.store.rows import Vectors

TRAILER = b"\nsha256 %s\n"


class _Sink(io.FileIO):
    """A file to HDF5 that never fails; `failure` is what really happened first."""

    def __init__(self, path: Path, reserve: int) -> None:
        super().__init__(path, "w+")
        self.failure: OSError | None = None
        self._length = 0  # of what was written; space is reserved beyond it
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self.fileno(), 0, reserve)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to an offset; the end is that of what was written."""
        if whence == os.SEEK_END:
            return super().seek(self._length + offset)
        return super().seek(offset, whence)

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
    size = np.dtype(contents.metadata["dtype"]).itemsize * math.prod(contents.vectors.shape)
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
    shapes = array_shapes(contents.metadata)

    def create(name: str) -> h5py.Dataset:
        shape, dtype = shapes[name]
        return file.create_dataset(
            name,
            shape=shape,
            dtype=dtype,
            chunks=(min(ARRAYS[name], shape[0]), *shape[1:]),
            fletcher32=True,
            fillvalue=np.nan if name == "vectors" else None,
            track_times=False,
        )

    contents.fill(create)


def read_metadata(path: Path) -> Mapping[str, Any]:
    """The metadata in the file at `path`, unchecked; PackError where it is no pack in HDF5."""
    refusal = partial(no_pack, path, "an HDF5")
    with _rejections(refusal, "damaged metadata ({})"):
        try:
            with _file(path) as file:
                text = _dataset(file, "metadata", "|u1", most_bytes=MOST_JSON)[...].tobytes()
        except _OtherLayoutError as error:
            raise refusal(f"data of another program ({error})") from error
        metadata = parse_json(text, strict=True)
    if not isinstance(metadata, dict):
        raise refusal("metadata that is no object")
    return metadata


def find_arrays(path: Path, metadata: Mapping[str, Any]) -> PackRows:
    """Find the arrays of a pack whose metadata has been checked; rows are not checked yet."""
    with _rejections(partial(damaged, path)), _file(path) as file:
        shapes = array_shapes(metadata).items()
        arrays = {name: _dataset(file, name, dtype, shape) for name, (shape, dtype) in shapes}
        return PackRows(
            path=path,
            metadata=metadata,
            image_id=_read(path, arrays["image_id"]),
            row_crc32=_read(path, arrays["row_crc32"]),
            chunks=_chunks(Path(os.path.realpath(path)), arrays["vectors"]),
        )


@contextmanager
def _rejections(refusal: Callable[[str], PackError], of_others: str = "{}") -> Iterator[None]:
    """Turn what is not as in a pack, and HDF5's many ways to reject bytes, into a refusal."""
    try:
        yield
    except AgiqaError:
        raise
    except OSError as error:
        if error.errno is not None:  # the disk's own
            raise
        raise refusal("a file that HDF5 cannot read") from error
    except Exception as error:
        raise refusal(of_others.format(one_line(error))) from error


def _read(path: Path, array: h5py.Dataset) -> Vectors:
    try:
        return np.asarray(array[...])
    except Exception as error:  # HDF5 has many ways to reject bytes
        name = array.name.removeprefix("/")
        raise damaged(path, f"a data set {name} with a chunk that fails its checksum") from error


class _OtherLayoutError(Exception):
    """Something in the file is not as in a pack of agiqa; says what."""


@contextmanager
def _file(path: Path) -> Iterator[h5py.File]:
    """The file, opened; _OtherLayoutError unless its root is that of a pack, in plain HDF5.

    HDF5 would follow links into other files, load filters from HDF5_PLUGIN_PATH as code, and
    unpack a small file into gigabytes, all on the way to a data set that is asked for by name.
    So headers are looked at first, link by link and message by message.
    """
    real_path = Path(os.path.realpath(path))  # the pack itself may be a link, as DVC makes them
    with open_own(real_path) as raw:
        if raw.read(len(_SIGNATURE)) != _SIGNATURE:
            raise OSError("no signature of HDF5")
    with h5py.File(real_path, "r") as file:
        _require_messages(file.id, b".", _GROUP_MESSAGES)
        if file.id.get_num_objs() > len(DATA_SETS):
            raise _OtherLayoutError(f"more than its {len(DATA_SETS)} data sets")
        yield file


# Superblock of version 0, as libraries write by default.
_SIGNATURE = b"\x89HDF\r\n\x1a\n\x00"
DATA_SETS = ("metadata", *ARRAYS)
# Kinds of object header messages, by the bits in which HDF5 reports them (its format
# specification, IV.A.2). Not among them: external files (7), links and their heaps (2, 6).
_GROUP_MESSAGES = frozenset({0, 12, 16, 17})  # nil, attribute (not read), continuation, members
_ARRAY_MESSAGES = frozenset({0, 1, 3, 4, 5, 8, 11, 16, 18})  # space, type, fill, layout, filters …


def _require_messages(file: h5py.h5g.GroupID, name: bytes, allowed: frozenset[int]) -> None:
    info = h5py.h5o.get_info(file, name)
    message_kinds = {bit for bit in range(64) if info.hdr.mesg.present >> bit & 1}
    if info.hdr.mesg.shared or info.meta_size.attr.heap_size or not message_kinds <= allowed:
        part = "the root" if name == b"." else f"data set {name.decode()}"
        raise _OtherLayoutError(
            f"{part} with parts that no pack of agiqa has (links, external files …)"
        )


def _dataset(
    file: h5py.File, name: str, dtype: str, shape: tuple[int, ...] = (), most_bytes: int = 0
) -> h5py.Dataset:
    """A data set, after looking at all that reading it would obey; _OtherLayoutError says why not.

    Args:
        file: what `_file` gave.
        name: of the data set.
        dtype: that it must have.
        shape: that it must have; none: any number of values in one dimension and one chunk.
        most_bytes: with no shape, the most that it may have.
    """
    key = name.encode()
    if not file.id.links.exists(key):
        raise _OtherLayoutError(f"no data set {name}")
    if file.id.links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise _OtherLayoutError(f"a link in place of data set {name}")
    _require_messages(file.id, key, _ARRAY_MESSAGES)
    if h5py.h5o.get_info(file.id, key).type != h5py.h5o.TYPE_DATASET:
        raise _OtherLayoutError(f"no data set {name}")
    array = h5py.h5d.open(file.id, key)
    plan = array.get_create_plist()
    filters = [plan.get_filter(index)[0] for index in range(plan.get_nfilters())]
    if plan.get_layout() != h5py.h5d.CHUNKED or plan.get_external_count():
        raise _OtherLayoutError(f"data set {name} laid out in another way (virtual, external …)")
    if filters != [h5py.h5z.FILTER_FLETCHER32]:
        raise _OtherLayoutError(f"data set {name} with other filters than fletcher32")
    space = array.get_space()
    if space.get_simple_extent_type() != h5py.h5s.SIMPLE or not array.get_type().equal(
        h5py.h5t.py_create(np.dtype(dtype))
    ):
        raise _OtherLayoutError(f"data set {name} of another type than {np.dtype(dtype)}")
    extent = space.get_simple_extent_dims()
    if not shape:
        shape = extent if len(extent) == 1 and 0 < extent[0] <= most_bytes else (0,)
        chunk = shape
    else:
        chunk = (min(ARRAYS[name], shape[0]), *shape[1:])
    if extent != shape or plan.get_chunk() != chunk:
        raise _OtherLayoutError(
            f"data set {name} of shape {extent} in chunks of {plan.get_chunk()}"
        )
    if math.prod(shape) * np.dtype(dtype).itemsize > file.id.get_filesize():
        raise _OtherLayoutError(f"data set {name} larger than the file")
    return h5py.Dataset(array)


def _chunks(file: Path, vectors: h5py.Dataset) -> list[tuple[Path, int] | None]:
    """Where in the file each chunk starts; None where it has none of that size."""
    whole = math.prod(vectors.chunks) * vectors.dtype.itemsize + 4  # and its fletcher32
    starts: dict[int, int] = {}

    def note(chunk: Any) -> None:
        if chunk.size == whole and not any(chunk.chunk_offset[1:]):
            starts[chunk.chunk_offset[0] // vectors.chunks[0]] = chunk.byte_offset

    vectors.id.chunk_iter(note)
    count = -(-vectors.shape[0] // vectors.chunks[0])
    return [(file, starts[number]) if number in starts else None for number in range(count)]


def content_damage(path: Path, metadata: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """What is wrong anywhere in the file, in bytes from which nothing is read, too."""
    del metadata
    digest, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as file:
        (remaining,) = struct.unpack("<Q", file.read(48)[40:])  # where HDF5 ends, by the superblock
        if remaining + len(TRAILER % bytes(64)) != size:
            return [(path, f"has {size:,} bytes, not {remaining:,} and a checksum of them")]
        file.seek(0)
        while remaining > 0 and (block := file.read(min(remaining, 1 << 20))):
            digest.update(block)
            remaining -= len(block)
        if file.read() == TRAILER % digest.hexdigest().encode():
            return []
    return [(path, "its bytes do not give the sha256 at its end")]
