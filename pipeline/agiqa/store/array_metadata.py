"""What the zarr.json of an array must say: every word of it, so that no flipped bit passes.

Zarr's metadata has no checksum. But all of ours follows from shape, dtype and chunk, so whatever
reads a pack, and `verify` in the ledger, compares it with what it must be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.core.trees import parse_json
from agiqa.store.chunks import DTYPES, ROWS_A_CHUNK
from agiqa.store.durable import write_file
from agiqa.store.own_files import read_own

MOST_JSON = 8 << 20  # bytes of metadata: some 100,000 images left out
_SHOWN = 200  # characters of a value in a message
# Fields that may be left out, where they say nothing.
EMPTY: Mapping[str, object] = {
    "attributes": {},
    "storage_transformers": [],
    "dimension_names": None,
}


def expected_metadata(
    shape: tuple[int, ...], dtype: str, chunk_rows: int, fill_value: float | str
) -> dict[str, Any]:
    """The metadata of an array of `create_array`, without the fields in `EMPTY`."""
    endian: dict[str, Any] = {"name": "bytes"}
    if np.dtype(dtype).itemsize > 1:
        endian["configuration"] = {"endian": "little"}
    chunks = {"chunk_shape": [chunk_rows, *shape[1:]]}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": str(np.dtype(dtype).newbyteorder("=")),
        "chunk_grid": {"name": "regular", "configuration": chunks},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": fill_value,
        "codecs": [endian, {"name": "crc32c"}],
    }


def shelf_metadata(rows: int, width: int, dtype: str) -> dict[str, Any]:
    """That of a section's array, as long as its capacity."""
    return expected_metadata((rows, width), DTYPES[dtype], ROWS_A_CHUNK, "NaN")


def array_rows(folder: Path, width: int) -> int:
    """The capacity of a section's array; AgiqaError where its metadata is damaged."""
    tree, wrong = read_json(folder / "zarr.json")
    shape = (tree or {}).get("shape")
    if not wrong and isinstance(shape, list) and len(shape) == 2:
        if type(shape[0]) is int and 0 <= shape[0] < 2**62 and shape[1] == width:
            return int(shape[0])
        wrong = f"says shape {shape}"
    raise AgiqaError(
        f"{folder / 'zarr.json'}: expected the metadata of vectors of width {width}, found that it "
        f"{wrong or 'has no shape'}; `agiqa cache verify --repair` writes it anew"
    )


def write_metadata(folder: Path, expected: Mapping[str, Any]) -> None:
    """Replace `folder`/zarr.json by what it must say, atomically and durably."""
    tree = {**expected, "attributes": {}, "storage_transformers": []}
    write_file(folder / "zarr.json", json.dumps(tree, indent=2).encode())


def metadata_damage(folder: Path, expected: Mapping[str, Any]) -> str | None:
    """What is wrong with `folder`/zarr.json, in words; None where nothing is.

    OSError for a disk that cannot be read; StrangeFileError for a link, pipe or device.
    """
    tree, wrong = read_json(folder / "zarr.json")
    if tree is None:
        return wrong
    for field, value in expected.items():
        if (text := json.dumps(tree.get(field))) != json.dumps(value):
            return f"{field} is {text[:_SHOWN]}, not {json.dumps(value)}"
    for field, value in tree.items():
        if field not in expected and (field not in EMPTY or value != EMPTY[field]):
            return f"has a field {field[:_SHOWN]!r} that no array of agiqa has"
    return None


def read_json(path: Path) -> tuple[dict[str, Any] | None, str | None]:
    """The JSON object in `path`, and None; or None, and what is wrong in words.

    Errors as `metadata_damage`.
    """
    try:
        return spelled_json(read_own(path, MOST_JSON)), None
    except FileNotFoundError:
        return None, "is missing"
    except ValueError as error:
        return None, str(error)


def spelled_json(data: bytes) -> dict[str, Any]:
    r"""The JSON object in a file of agiqa; ValueError says in words what is wrong.

    Refused too is what reads well but is not spelled as Python spells it: there a bit has flipped
    that changes no value (`\u00e9` and `\u00E9` are the same letter).
    """
    try:
        text = data.decode("ascii")
        tree = parse_json(text, strict=True)
    except UnicodeDecodeError:
        raise ValueError("does not parse: letters that are not ASCII") from None
    except ValueError as error:
        raise ValueError(f"does not parse: {error}") from error
    if not isinstance(tree, dict):
        raise ValueError("is no JSON object")
    if re.sub(r"\s", "", text) != re.sub(r"\s", "", json.dumps(tree)):
        raise ValueError("is spelled in a way in which nothing of agiqa is")
    return tree
