"""What the zarr.json of an array must say: every word of it, so that no flipped bit passes.

Zarr's metadata has no checksum. But all of ours follows from shape, dtype and chunk, so a check
compares it with what it must be. `verify` reads through here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.trees import parse_json

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


def metadata_damage(folder: Path, expected: Mapping[str, Any]) -> str | None:
    """What is wrong with `folder`/zarr.json, in words; None where nothing is."""
    found, wrong = read_json(folder / "zarr.json")
    if found is None:
        return wrong
    for field, value in expected.items():
        if found.get(field) != value:
            return f"{field} is {json.dumps(found.get(field))}, not {json.dumps(value)}"
    for field, value in found.items():
        if field not in expected and (field not in EMPTY or value != EMPTY[field]):
            return f"has a field {field!r} that no array of agiqa has"
    return None


def read_json(path: Path) -> tuple[dict[str, Any] | None, str | None]:
    r"""The JSON object in `path`, and None; or None, and what is wrong in words.

    Refused too is what reads well but is not spelled as Python spells it: there a bit has flipped
    that changes no value (`\u00e9` and `\u00E9` are the same letter).
    """
    try:
        text = path.read_bytes().decode("ascii")
        found = parse_json(text)
    except FileNotFoundError:
        return None, "is missing"
    except ValueError as error:
        return None, f"does not parse ({type(error).__name__})"
    if not isinstance(found, dict):
        return None, "is no JSON object"
    if _without_space(text) != _without_space(json.dumps(found)):
        return None, "is spelled in a way in which nothing of agiqa is"
    return found, None


def _without_space(text: str) -> str:
    return re.sub(r"\s", "", text)
