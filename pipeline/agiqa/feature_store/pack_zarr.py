"""Packs as Zarr v3 groups: metadata in the group's attributes, chunks with crc32c in flat folders.

    <name>.zarr/zarr.json               the attributes
    <name>.zarr/vectors/c.<chunk>.0.0   256 rows each; likewise image_id/, row_crc32/

Plain `zarr.open` reads it. Chunks are not compressed: float vectors gain next to nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from agiqa.feature_store.chunks import create_array
from agiqa.feature_store.pack_layout import ARRAYS, Contents, PackError, damaged


def write(path: Path, contents: Contents) -> None:
    """Write a new folder; the caller makes it durable and moves it into place."""
    zarr.create_group(LocalStore(path), attributes=dict(contents.metadata))
    for name, chunk_rows in ARRAYS.items():
        values = getattr(contents, name)
        fill = float("nan") if name == "vectors" else None
        array = create_array(
            path / name,
            values.shape,
            values.dtype.str,
            chunk_rows=min(chunk_rows, len(values)),
            fill_value=fill,
        )
        array[...] = values


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


def read(path: Path, metadata: Mapping[str, Any]) -> Contents:
    """Read all arrays of a pack whose metadata has been checked; rows are not checked yet."""
    arrays = {}
    for name in ARRAYS:
        try:
            array = zarr.open_array(LocalStore(path / name), mode="r")
            arrays[name] = np.asarray(array[...])
        except FileNotFoundError as error:
            raise damaged(path, f"no array {name}") from error
        except OSError:
            raise
        except Exception as error:  # each codec has its own ways to reject bytes
            raise damaged(path, f"an array {name} with a chunk that fails its checksum") from error
    return Contents(metadata, **arrays)
