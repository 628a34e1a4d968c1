"""JSON as RFC 8259 has it: the one way in which results, records and answers are written.

Python's own writer puts `NaN` and `Infinity` where a figure is not defined, which no other reader
takes, and stops at NumPy's numbers. Here what is not a finite number is null; whoever reads figures
back meets None and shows a dash. What is only hashed or compared stays with `json` itself.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.core.errors import printable


def json_text(
    value: object, *, indent: int | None = None, compact: bool = False, ascii_only: bool = False
) -> str:
    """The JSON of a value: NaN and infinities as null, NumPy's numbers and arrays as plain ones.

    Args:
        value: mappings, sequences, dataclasses, paths, text, numbers, None.
        indent: spaces a level; None writes one line.
        compact: no spaces after commas and colons.
        ascii_only: escape all else, for a terminal or pipe that is not UTF-8.

    Raises:
        TypeError: something else, which is a mistake of ours.
    """
    text = json.dumps(
        plain_json(value),
        indent=indent,
        separators=(",", ":") if compact else None,
        ensure_ascii=ascii_only,
        allow_nan=False,
    )
    return printable(text, lines=True)  # escaped in JSON's own way: it reads back the same


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON to a file of its own, with a final newline."""
    path.write_text(json_text(content, indent=2) + "\n", encoding="utf-8")


def plain_json(value: object) -> Any:
    """A copy of what `json_text` takes, of dicts, lists, text, finite numbers, bools and None.

    Raises:
        TypeError: a value of another kind.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {_key(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, float):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | bool | int):
        return value
    raise TypeError(f"no JSON value: {type(value).__name__} {value!r}")


def _key(key: object) -> str:
    """Write a key as `json` does, NumPy's numbers too."""
    key = key.item() if isinstance(key, np.generic) else key
    if not isinstance(key, str | int):
        raise TypeError(f"no key of a JSON object: {type(key).__name__} {key!r}")
    return key if isinstance(key, str) else json.dumps(key)
