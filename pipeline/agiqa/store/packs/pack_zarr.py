"""Packs as Zarr v3 groups: metadata in the group's attributes, chunks with crc32c in flat folders.

    <name>.zarr/zarr.json               the attributes
    <name>.zarr/vectors/c.<chunk>.0.0   256 rows each; likewise image_id/, row_crc32/

Plain `zarr.open` reads it; it is written by Zarr, but read without it (zarr_arrays.py), since a
stranger's metadata would choose codecs, shapes and files for Zarr. What is in the folder must be
this and nothing else before any array is opened. Chunks are not compressed: float vectors gain next
to nothing.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from agiqa.core.errors import one_line
from agiqa.core.trees import parse_json
from agiqa.store.own_files import read_json, read_own, require_own_file, require_own_folder
from agiqa.store.packs.pack_layout import (
    ARRAYS,
    LARGEST_ABSENT_CHUNK,
    MOST_JSON,
    Contents,
    PackError,
    Stored,
    array_shapes,
    damaged,
    strange_files,
)
from agiqa.store.packs.zarr_arrays import (
    create_array,
    expected_metadata,
    metadata_damage,
    read_chunk,
)
from agiqa.store.rows import DTYPES, Vectors

GROUP = {"zarr_format": 3, "node_type": "group"}


def write(path: Path, contents: Contents) -> None:
    """Write a new folder; the caller makes it durable and moves it into place."""
    zarr.create_group(LocalStore(path), attributes=dict(contents.metadata))
    vectors = _create(path / "vectors", contents.shape, DTYPES[contents.metadata["dtype"]])
    for rows, block in contents.blocks():
        vectors[rows] = block
    for name in ("image_id", "row_crc32"):
        values = getattr(contents, name)
        _create(path / name, values.shape, values.dtype.str)[...] = values


def _create(folder: Path, shape: tuple[int, ...], dtype: str) -> zarr.Array[Any]:
    fill = float("nan") if folder.name == "vectors" else None
    rows = min(ARRAYS[folder.name], shape[0])
    return create_array(folder, shape, dtype, chunk_rows=rows, fill_value=fill)


def read_metadata(path: Path) -> Mapping[str, Any]:
    """The attributes of the group at `path`, unchecked; PackError where it is no Zarr v3 group."""
    try:
        with strange_files(path):
            group = parse_json(read_own(path / "zarr.json", MOST_JSON), strict=True)
        if group["node_type"] == "group" and isinstance(group["attributes"], dict):
            return dict(group["attributes"])
        found = "data of another program"
    except (FileNotFoundError, NotADirectoryError):
        found = "nothing that looks like one"
    except (ValueError, KeyError, TypeError) as error:
        found = f"a zarr.json that is damaged or of another program ({one_line(error)})"
    raise PackError(
        f"{path}: expected a Zarr v3 pack of agiqa, found {found}; "
        "name the pack that `agiqa extract` wrote, or run it again"
    )


@contextmanager
def opened(path: Path, metadata: Mapping[str, Any]) -> Iterator[Stored]:
    """Give the arrays of a pack whose metadata has been checked; rows are not checked yet."""
    with strange_files(path):
        if found := structure_damage(path, metadata):
            where, what = found[0]
            raise damaged(path, f"that {where.relative_to(path)} {what}")
        vectors = _array(path, metadata, "vectors")
        sizes = _sizes(vectors)
        _require_plausible(path, vectors, sum(sizes.values()))
        yield Stored(
            image_id=_whole(path, _array(path, metadata, "image_id")),
            row_crc32=_whole(path, _array(path, metadata, "row_crc32")),
            shape=vectors.shape,
            dtype=np.dtype(metadata["dtype"]),
            read=partial(_rows, path, vectors),
            absent=[k for k in range(vectors.chunks) if sizes.get(k) != vectors.chunk_bytes + 4],
        )


@dataclass(frozen=True)
class _Array:
    """What an array must be, as the pack's metadata has it."""

    folder: Path
    shape: tuple[int, ...]
    dtype: str  # as numpy writes it
    chunk_rows: int

    @property
    def chunk(self) -> tuple[int, ...]:
        """The shape of a chunk; the last one is filled up."""
        return self.chunk_rows, *self.shape[1:]

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return -(-self.shape[0] // self.chunk_rows)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of each, without its checksum."""
        return math.prod(self.chunk) * np.dtype(self.dtype).itemsize

    def file(self, number: int) -> Path:
        """Where a chunk lies."""
        return self.folder / ".".join(["c", str(number), *("0" for _ in self.shape[1:])])


def _array(path: Path, metadata: Mapping[str, Any], name: str) -> _Array:
    shape, dtype = array_shapes(metadata)[name]
    return _Array(path / name, shape, dtype, min(ARRAYS[name], shape[0]))


def _sizes(array: _Array) -> dict[int, int]:
    """Bytes of the chunks that are there, by number; StrangeFileError for links and pipes."""
    found: dict[int, int] = {}
    pattern = re.compile(r"c\.(0|[1-9][0-9]{0,9})" + r"\.0" * (len(array.shape) - 1))
    with os.scandir(array.folder) as entries:
        for entry in entries:
            number = pattern.fullmatch(entry.name)
            if number and int(number[1]) < array.chunks:
                with suppress(FileNotFoundError):
                    file = require_own_file(Path(entry.path))
                    found[int(number[1])] = file.stat().st_size
    return found


def _require_plausible(path: Path, vectors: _Array, size: int) -> None:
    """Refuse what would take more memory for one chunk than all that is there has bytes."""
    if vectors.chunk_bytes > max(LARGEST_ABSENT_CHUNK, size):
        raise damaged(
            path,
            f"chunks of {vectors.chunk_bytes:,} bytes in its metadata and {size:,} bytes in its "
            "files",
        )


def _whole(path: Path, array: _Array) -> Vectors:
    """All rows of an array whose every chunk is there and sound; PackError else."""
    for number in range(array.chunks):  # before memory is taken for what may not be there
        with suppress(FileNotFoundError):
            if array.file(number).stat().st_size == array.chunk_bytes + 4:
                continue
        raise damaged(path, f"an array {array.folder.name} whose chunk {number} is missing or cut")
    return _rows(path, array, slice(0, array.shape[0]))


def _rows(path: Path, array: _Array, rows: slice) -> Vectors:
    """Rows (n, …) of an array; PackError where a chunk is missing or fails its checksum."""
    found = np.empty((rows.stop - rows.start, *array.shape[1:]), dtype=array.dtype)
    for number in range(rows.start // array.chunk_rows, -(-rows.stop // array.chunk_rows)):
        with strange_files(path):
            chunk = read_chunk(array.file(number), array.chunk, array.dtype)
        if chunk is None:
            raise damaged(
                path, f"an array {array.folder.name} with a chunk that fails its checksum"
            )
        first = number * array.chunk_rows
        start, stop = max(rows.start, first), min(rows.stop, first + array.chunk_rows)
        found[start - rows.start : stop - rows.start] = chunk[start - first : stop - first]
    return found


def structure_damage(path: Path, metadata: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """What is wrong outside the arrays' chunks, file by file: every word of each zarr.json.

    PackError for links, pipes and devices.
    """
    damage: list[tuple[Path, str]] = []
    with strange_files(path):
        group, wrong = read_json(path / "zarr.json", MOST_JSON)
        if group is None or group != GROUP | {"attributes": group.get("attributes")}:
            damage.append((path / "zarr.json", wrong or "has fields that no pack of agiqa has"))
        names = {"zarr.json", *ARRAYS}
        damage += _strangers(path, names.__contains__)
        for name in ARRAYS:
            array = _array(path, metadata, name)
            if not array.folder.exists() and not array.folder.is_symlink():
                damage.append((array.folder, "is missing"))
                continue
            require_own_folder(array.folder)
            fill = "NaN" if name == "vectors" else 0
            expected = expected_metadata(array.shape, array.dtype, array.chunk_rows, fill)
            if wrong := metadata_damage(array.folder, expected):
                damage.append((array.folder / "zarr.json", wrong))
            damage += _strangers(array.folder, partial(_is_of_array, array))
    return damage


def _is_of_array(array: _Array, name: str) -> bool:
    """Tell whether an array has a file of this name: a chunk within its rows, or its metadata."""
    chunk = re.fullmatch(r"c\.(0|[1-9][0-9]{0,9})" + r"\.0" * (len(array.shape) - 1), name)
    return name == "zarr.json" or bool(chunk and int(chunk[1]) < array.chunks)


def _strangers(folder: Path, is_ours: Callable[[str], bool]) -> list[tuple[Path, str]]:
    """Find the first name in a folder that no pack has; hidden files, as a Mac's, are let be."""
    with os.scandir(folder) as entries:
        for entry in entries:
            hidden = entry.name[0] == "." and entry.name[:2] != ".z"
            if not is_ours(entry.name) and not (hidden and entry.is_file(follow_symlinks=False)):
                return [(Path(entry.path), "is nothing that a pack of agiqa has: remove it")]
    return []


def content_damage(path: Path) -> list[tuple[Path, str]]:
    """Nothing beside structure and rows."""
    del path
    return []
