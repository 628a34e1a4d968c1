"""Packs as Zarr v3 groups: metadata in the group's attributes, chunks with crc32c in flat folders.

    <name>.zarr/zarr.json               the attributes
    <name>.zarr/vectors/c.<chunk>.0.0   256 rows each; likewise image_id/, row_crc32/

Plain `zarr.open` reads it. Chunks are not compressed: float vectors gain next to nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from agiqa.feature_store.chunks import DTYPES, Vectors, create_array
from agiqa.feature_store.pack_layout import ARRAYS, Contents, PackError, Stored, damaged


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
        group = json.loads((path / "zarr.json").read_bytes())
        attributes = group["attributes"] if group["node_type"] == "group" else {}
        return dict(attributes)
    except (FileNotFoundError, NotADirectoryError):
        found = "nothing that looks like one"
    except (ValueError, KeyError, TypeError):
        found = "a zarr.json that is damaged or of another program"
    raise PackError(
        f"{path}: expected a Zarr v3 pack of agiqa, found {found}; "
        "name the pack that `agiqa extract` wrote, or run it again"
    )


@contextmanager
def opened(path: Path) -> Iterator[Stored]:
    """Give the arrays of a pack whose metadata has been checked; rows are not checked yet."""
    arrays = {name: _open(path, name) for name in ARRAYS}
    everything = slice(None)
    yield Stored(
        image_id=_read(path, arrays, "image_id", everything),
        row_crc32=_read(path, arrays, "row_crc32", everything),
        shape=arrays["vectors"].shape,
        dtype=np.dtype(arrays["vectors"].dtype),
        read=lambda rows: _read(path, arrays, "vectors", rows),
    )


def _open(path: Path, name: str) -> zarr.Array[Any]:
    try:
        return zarr.open_array(LocalStore(path / name), mode="r")
    except FileNotFoundError as error:
        raise damaged(path, f"no array {name}") from error
    except OSError:
        raise
    except Exception as error:  # Zarr has many ways to reject metadata
        raise damaged(path, f"an array {name} with damaged metadata") from error


def _read(path: Path, arrays: Mapping[str, zarr.Array[Any]], name: str, rows: slice) -> Vectors:
    try:
        return np.asarray(arrays[name][rows])
    except OSError:
        raise
    except Exception as error:  # each codec has its own ways to reject bytes
        raise damaged(path, f"an array {name} with a chunk that fails its checksum") from error
