"""Packs as Zarr v3 groups: metadata in the group's attributes, chunks with crc32c in flat folders.

    <name>.zarr/zarr.json               the attributes
    <name>.zarr/vectors/c.<chunk>.0.0   256 rows each; likewise image_id/, row_crc32/

Plain `zarr.open` reads it. Chunks are not compressed: float vectors gain next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from agiqa.feature_store.array_metadata import expected_metadata, metadata_damage, read_json
from agiqa.feature_store.chunks import DTYPES, Vectors, create_array
from agiqa.feature_store.packs.pack_layout import ARRAYS, Contents, PackError, Stored, damaged
from agiqa.regular_file import read_regular
from agiqa.trees import MOST_JSON, parse_json

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
        group = parse_json(read_regular(path / "zarr.json", MOST_JSON))
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
        return zarr.open_array(LocalStore(path / name), mode="r", zarr_format=3)
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


def structure_damage(path: Path, metadata: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """What is wrong outside the arrays' chunks, file by file: every word of each zarr.json."""
    found = []
    group, wrong = read_json(path / "zarr.json")
    if group is None or group != GROUP | {"attributes": group.get("attributes")}:
        found.append((path / "zarr.json", wrong or "has fields that no pack of agiqa has"))
    rows, width = int(metadata["rows"]), int(metadata["width"])
    shapes: dict[str, tuple[tuple[int, ...], str, float | str]] = {
        "vectors": ((rows, len(metadata["names"]), width), DTYPES[metadata["dtype"]], "NaN"),
        "image_id": ((rows, 32), "u1", 0),
        "row_crc32": ((rows,), "<u4", 0),
    }
    for name, (shape, dtype, fill) in shapes.items():
        expected = expected_metadata(shape, dtype, min(ARRAYS[name], rows), fill)
        if wrong := metadata_damage(path / name, expected):
            found.append((path / name / "zarr.json", wrong))
    return found
