"""Packs as Zarr v3 groups: metadata in the group's attributes, chunks with crc32c in flat folders.

    <name>.zarr/zarr.json               the attributes
    <name>.zarr/vectors/c.<chunk>.0.0   256 rows each; likewise image_id/, row_crc32/

Plain `zarr.open` reads it; it is written by Zarr, but read without it (zarr_arrays.py), since a
stranger's metadata would choose codecs, shapes and files for Zarr. What is in the folder must be
this and nothing else before any array is opened. Chunks are not compressed: float vectors gain next
to nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.core.errors import one_line
from agiqa.core.trees import parse_json
from agiqa.store.own_files import read_json, read_own, require_own_folder
from agiqa.store.packs.pack_layout import (
    ARRAYS,
    MOST_JSON,
    Contents,
    PackError,
    array_shapes,
    damaged,
    strange_files,
)
from agiqa.store.packs.pack_rows import Stored
from agiqa.store.packs.zarr_arrays import ZarrArray
from agiqa.store.rows import Vectors

GROUP = {"zarr_format": 3, "node_type": "group"}
LARGEST_ABSENT_CHUNK = 64 << 20  # bytes that a chunk may take though it is not there


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
        with strange_files(path):
            group = parse_json(read_own(path / "zarr.json", MOST_JSON), strict=True)
        if group["node_type"] == "group" and isinstance(group["attributes"], dict):
            return dict(group["attributes"])
        reason = "data of another program"
    except (FileNotFoundError, NotADirectoryError):
        reason = "nothing that looks like one"
    except (ValueError, KeyError, TypeError) as error:
        reason = f"a zarr.json that is damaged or of another program ({one_line(error)})"
    raise PackError(
        f"{path}: expected a Zarr v3 pack of agiqa, found {reason}; "
        "name the pack that `agiqa extract` wrote, or run it again"
    )


def find_arrays(path: Path, metadata: Mapping[str, Any]) -> Stored:
    """Find the arrays of a pack whose metadata has been checked; rows are not checked yet."""
    arrays = _arrays(path, metadata)
    with strange_files(path):
        _require_structure(path, arrays)
        vectors = arrays["vectors"]
        sizes, size = vectors.sizes(), vectors.chunk_bytes
        total = sum(sizes.values())
        if size > max(LARGEST_ABSENT_CHUNK, total):
            chunks = f"chunks of {size:,} bytes"
            raise damaged(path, f"{chunks} in its metadata and {total:,} bytes in its files")
        return Stored(
            image_id=_whole(path, arrays["image_id"]),
            row_crc32=_whole(path, arrays["row_crc32"]),
            chunks=[
                (vectors.file(number), 0) if sizes.get(number) == size + 4 else None
                for number in range(vectors.chunks)
            ],
        )


def _arrays(path: Path, metadata: Mapping[str, Any]) -> dict[str, ZarrArray]:
    return {
        name: ZarrArray(path / name, shape, dtype, min(ARRAYS[name], shape[0]))
        for name, (shape, dtype) in array_shapes(metadata).items()
    }


def _whole(path: Path, array: ZarrArray) -> Vectors:
    """Read all rows of an array; PackError unless every chunk is there and sound."""
    for number in range(array.chunks):  # before memory is taken for what may not be there
        with suppress(FileNotFoundError):
            if array.file(number).stat().st_size == array.chunk_bytes + 4:
                continue
        raise damaged(path, f"an array {array.folder.name} whose chunk {number} is missing or cut")
    chunks = [array.read_chunk(number) for number in range(array.chunks)]
    sound = [chunk for chunk in chunks if chunk is not None]
    if len(sound) < len(chunks):
        raise damaged(path, f"an array {array.folder.name} with a chunk that fails its checksum")
    return np.concatenate(sound)[: array.shape[0]]


def _require_structure(path: Path, arrays: Mapping[str, ZarrArray]) -> None:
    """PackError where anything but chunks differs: every name, every word of each zarr.json."""
    group, wrong = read_json(path / "zarr.json", MOST_JSON)
    if group is None or group != GROUP | {"attributes": group.get("attributes")}:
        raise damaged(path, f"that zarr.json {wrong or 'has fields that no pack of agiqa has'}")
    _require_known(path, path, {"zarr.json", *ARRAYS}.__contains__)
    for name, array in arrays.items():
        if not array.folder.exists() and not array.folder.is_symlink():
            raise damaged(path, f"that {name} is missing")
        require_own_folder(array.folder)
        if wrong := array.metadata_damage():
            raise damaged(path, f"that {name}/zarr.json {wrong}")
        _require_known(path, array.folder, array.has_file)


def _require_known(path: Path, folder: Path, is_ours: Callable[[str], bool]) -> None:
    """PackError for a name that no pack has; hidden files, as a Mac's, are let be."""
    with os.scandir(folder) as entries:
        for entry in entries:
            hidden = entry.name[0] == "." and entry.name[:2] != ".z"
            if not is_ours(entry.name) and not (hidden and entry.is_file(follow_symlinks=False)):
                name = Path(entry.path).relative_to(path)
                raise damaged(path, f"that {name} is nothing that a pack of agiqa has: remove it")


def content_damage(path: Path, metadata: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """Chunks that fail Zarr's own checksum, be it in bytes from which nothing is read."""
    with strange_files(path):
        vectors = _arrays(path, metadata)["vectors"]
        bad = [n for n in range(vectors.chunks) if vectors.read_chunk(n) is None]
    return [(vectors.folder, f"chunk {number} fails its checksum") for number in bad]
