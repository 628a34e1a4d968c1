"""Packs as Zarr v3 groups: metadata in the group's attributes, chunks with crc32c in flat folders.

    <name>.zarr/zarr.json               the attributes
    <name>.zarr/vectors/c.<chunk>.0.0   256 rows each; likewise image_id/, row_crc32/

Plain `zarr.open` reads it; it is written by Zarr, but read without it, since a stranger's metadata
would choose codecs, shapes and files for Zarr. What is in the folder must be this and nothing else
before any array is opened: Zarr's metadata has no checksum, but all of ours follows from shape,
dtype and chunk, so that every word of it is compared with what it must be, and no flipped bit
passes. Chunks are not compressed: float vectors gain next to nothing.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from agiqa.core.errors import one_line
from agiqa.core.trees import parse_json
from agiqa.store.files import (
    open_own,
    read_own,
    require_own_folder,
    sizes_in,
    spelled_json,
)
from agiqa.store.packs.pack_layout import (
    ARRAYS,
    MOST_JSON,
    Contents,
    PackRows,
    array_shapes,
    damaged,
    no_pack,
)
from agiqa.store.rows import Vectors

if TYPE_CHECKING:
    import zarr

GROUP = {"zarr_format": 3, "node_type": "group"}
LARGEST_ABSENT_CHUNK = 64 << 20  # bytes that a chunk may take though it is not there
_SHOWN = 200  # characters of a value in a message
# Fields of an array that may be left out, where they say nothing.
EMPTY: Mapping[str, object] = {
    "attributes": {},
    "storage_transformers": [],
    "dimension_names": None,
}


def write(path: Path, contents: Contents) -> None:
    """Write a new folder; the caller makes it durable and moves it into place."""
    import zarr
    from zarr.storage import LocalStore

    zarr.create_group(LocalStore(path), attributes=dict(contents.metadata))
    arrays = _arrays(path, contents.metadata)
    contents.fill(lambda name: arrays[name].create())


def read_metadata(path: Path) -> Mapping[str, Any]:
    """The attributes of the group at `path`, unchecked; PackError where it is no Zarr v3 group."""
    try:
        group = parse_json(read_own(path / "zarr.json", MOST_JSON), strict=True)
        if group["node_type"] == "group" and isinstance(group["attributes"], dict):
            return dict(group["attributes"])
        reason = "data of another program"
    except (FileNotFoundError, NotADirectoryError):
        reason = "nothing that looks like one"
    except (ValueError, KeyError, TypeError) as error:
        reason = f"a zarr.json that is damaged or of another program ({one_line(error)})"
    raise no_pack(path, "a Zarr v3", reason)


def find_arrays(path: Path, metadata: Mapping[str, Any]) -> PackRows:
    """Find the arrays of a pack whose metadata has been checked; rows are not checked yet."""
    arrays = _arrays(path, metadata)
    _require_structure(path, arrays)
    vectors = arrays["vectors"]
    sizes, size = vectors.sizes(), vectors.chunk_bytes
    total = sum(sizes.values())
    if size > max(LARGEST_ABSENT_CHUNK, total):
        chunks = f"chunks of {size:,} bytes"
        raise damaged(path, f"{chunks} in its metadata and {total:,} bytes in its files")
    return PackRows(
        path=path,
        metadata=metadata,
        image_id=_whole(path, arrays["image_id"]),
        row_crc32=_whole(path, arrays["row_crc32"]),
        chunks=[
            (vectors.file(number), 0) if sizes.get(number) == size + 4 else None
            for number in range(vectors.chunks)
        ],
    )


def content_damage(path: Path, metadata: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """Chunks that fail Zarr's own checksum, be it in bytes from which nothing is read."""
    vectors = _arrays(path, metadata)["vectors"]
    bad = [n for n in range(vectors.chunks) if vectors.read_chunk(n) is None]
    return [(vectors.folder, f"chunk {number} fails its checksum") for number in bad]


@dataclass(frozen=True)
class ZarrArray:
    """What an array must be, as the pack's metadata has it; its chunks lie in one flat folder."""

    folder: Path
    shape: tuple[int, ...]
    dtype: str  # as numpy writes it
    chunk_rows: int

    @property
    def chunks(self) -> int:
        """How many chunks there are; the last one is filled up."""
        return -(-self.shape[0] // self.chunk_rows)

    @property
    def chunk_bytes(self) -> int:
        """Give the bytes of a chunk, without its checksum."""
        return self.chunk_rows * math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize

    def file(self, number: int) -> Path:
        """Give the path of a chunk's file."""
        return self.folder / ".".join(["c", str(number), *("0" for _ in self.shape[1:])])

    def number(self, name: str) -> int | None:
        """Read a chunk's number from its file's name; None where no chunk is called so."""
        match = re.fullmatch(r"c\.(0|[1-9][0-9]{0,9})" + r"\.0" * (len(self.shape) - 1), name)
        return int(match[1]) if match and int(match[1]) < self.chunks else None

    def has_file(self, name: str) -> bool:
        """Tell whether it has a file of this name: a chunk within its rows, or its metadata."""
        return name == "zarr.json" or self.number(name) is not None

    def create(self) -> zarr.Array[Any]:
        """Make the empty array: chunks with crc32c, not compressed."""
        import zarr
        from zarr.codecs import Crc32cCodec
        from zarr.storage import LocalStore

        return zarr.create_array(
            LocalStore(self.folder),
            shape=self.shape,
            dtype=self.dtype,
            chunks=(self.chunk_rows, *self.shape[1:]),
            compressors=Crc32cCodec(),
            fill_value=float("nan") if self.dtype.startswith("<f") else None,
            chunk_key_encoding={"name": "default", "separator": "."},
        )

    def metadata_damage(self, tree: Mapping[str, Any]) -> str:
        """Say what is wrong with what its zarr.json holds; "" where nothing is."""
        dtype = np.dtype(self.dtype)
        endian: dict[str, Any] = {"name": "bytes"}
        if dtype.itemsize > 1:
            endian["configuration"] = {"endian": "little"}
        chunk_shape, separator = [self.chunk_rows, *self.shape[1:]], {"separator": "."}
        expected: dict[str, Any] = {  # what `create` writes, without the fields in `EMPTY`
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": str(dtype.newbyteorder("=")),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk_shape}},
            "chunk_key_encoding": {"name": "default", "configuration": separator},
            "fill_value": "NaN" if dtype.kind == "f" else 0,
            "codecs": [endian, {"name": "crc32c"}],
        }
        for field, value in expected.items():
            if (text := json.dumps(tree.get(field))) != json.dumps(value):
                return f"{field} is {text[:_SHOWN]}, not {json.dumps(value)}"
        for field, value in tree.items():
            if field not in expected and (field not in EMPTY or value != EMPTY[field]):
                return f"has a field {field[:_SHOWN]!r} that no array of agiqa has"
        return ""

    def sizes(self) -> dict[int, int]:
        """Give the bytes of each present chunk by number; StrangeFileError for links and pipes."""
        sizes = sizes_in(self.folder, lambda name: self.number(name) is not None).items()
        return {number: size for name, size in sizes if (number := self.number(name)) is not None}

    def read_chunk(self, number: int) -> Vectors | None:
        """A chunk's rows, read-only; None where it is missing, of another size, or damaged.

        Only what must be there is read, whatever size the file has. OSError passes, a disk that
        cannot be read now says nothing about the rows; so does StrangeFileError.
        """
        size = self.chunk_bytes
        try:
            with open_own(self.file(number)) as opened:
                if os.fstat(opened.fileno()).st_size != size + 4:
                    return None
                data = np.frombuffer(opened.read(size + 4), dtype=np.uint8)
        except FileNotFoundError:
            return None
        check = int.from_bytes(data[size:].tobytes(), "little")
        if len(data) != size + 4 or google_crc32c.value(data[:size]) != check:
            return None
        return data[:size].view(self.dtype).reshape(self.chunk_rows, *self.shape[1:])


def _arrays(path: Path, metadata: Mapping[str, Any]) -> dict[str, ZarrArray]:
    return {
        name: ZarrArray(path / name, shape, dtype, min(ARRAYS[name], shape[0]))
        for name, (shape, dtype) in array_shapes(metadata).items()
    }


def _whole(path: Path, array: ZarrArray) -> Vectors:
    """Read all rows of an array; PackError unless every chunk is there and sound."""
    sizes, chunks, name = array.sizes(), [], array.folder.name
    for number in range(array.chunks):  # no memory is taken for what is not there
        if sizes.get(number) != array.chunk_bytes + 4:
            raise damaged(path, f"an array {name} whose chunk {number} is missing or cut")
        if (chunk := array.read_chunk(number)) is None:
            raise damaged(path, f"an array {name} with a chunk that fails its checksum")
        chunks.append(chunk)
    return np.concatenate(chunks)[: array.shape[0]]


def _require_structure(path: Path, arrays: Mapping[str, ZarrArray]) -> None:
    """PackError where anything but chunks differs: every name, every word of each zarr.json."""
    group = _read_json(path, "zarr.json")
    if group != GROUP | {"attributes": group.get("attributes")}:
        raise damaged(path, "that zarr.json has fields that no pack of agiqa has")
    _require_known(path, path, {"zarr.json", *ARRAYS}.__contains__)
    for name, array in arrays.items():
        if not array.folder.exists() and not array.folder.is_symlink():
            raise damaged(path, f"that {name} is missing")
        require_own_folder(array.folder)
        if wrong := array.metadata_damage(_read_json(path, f"{name}/zarr.json")):
            raise damaged(path, f"that {name}/zarr.json {wrong}")
        _require_known(path, array.folder, array.has_file)


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        return spelled_json(read_own(path / name, MOST_JSON))
    except FileNotFoundError:
        raise damaged(path, f"that {name} is missing") from None
    except ValueError as error:
        raise damaged(path, f"that {name} {error}") from error


def _require_known(path: Path, folder: Path, is_ours: Callable[[str], bool]) -> None:
    """PackError for a name that no pack has; hidden files, as a Mac's, are let be."""
    with os.scandir(folder) as entries:
        for entry in entries:
            hidden = entry.name[0] == "." and entry.name[:2] != ".z"
            if not is_ours(entry.name) and not (hidden and entry.is_file(follow_symlinks=False)):
                name = Path(entry.path).relative_to(path)
                raise damaged(path, f"that {name} is nothing that a pack of agiqa has: remove it")
