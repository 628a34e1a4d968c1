"""Fingerprints: everything that changes a vector's numbers, as one mapping of plain JSON values.

An extractor states one fingerprint for each vector it makes (model and revision, prompt, pooling,
preprocessing, dtype, library versions). Its digest names the shelf of the ledger in which the rows
lie, so rows made another way are never found by accident; `difference` explains, field by field,
why something has to be computed again. Content addressing as in git and in DVC's own cache.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from agiqa.core.errors import AgiqaError

Fingerprint: TypeAlias = Mapping[str, object]
"""Values are str, int, finite float, bool, None, and lists and string-keyed mappings of them."""


class _Absent:
    """Stands for a field that one of two fingerprints lacks."""

    def __repr__(self) -> str:
        return "nothing"


ABSENT: Final = _Absent()


class FingerprintMismatchError(AgiqaError):
    """Two fingerprints differ; `fields` holds (dotted field, expected, found)."""

    def __init__(self, message: str, fields: list[tuple[str, object, object]]) -> None:
        super().__init__(message)
        self.fields = fields


def plain(value: object, field: str = "fingerprint") -> object:
    """Copy `value` with plain dicts and lists, keys sorted; TypeError names a field JSON lacks."""
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"{field}: expected string keys, found {wrong[0]!r}")
        return {key: plain(value[key], f"{field}.{key}") for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [plain(item, f"{field}.{index}") for index, item in enumerate(value)]
    if value is None or type(value) in (str, int, bool):
        return value
    if type(value) is float and value - value == 0.0:  # neither NaN nor infinite
        return value
    raise TypeError(f"{field}: expected a JSON value, found {type(value).__name__} {value!r}")


def canonical(value: object) -> str:
    """The one JSON text of `value`: sorted keys, no spaces, ASCII."""
    return json.dumps(plain(value), separators=(",", ":"))


def digest(fingerprint: Fingerprint) -> str:
    """The sha256 of the canonical JSON, in hex; equal fingerprints only have equal digests."""
    return hashlib.sha256(canonical(fingerprint).encode()).hexdigest()


def difference(a: object, b: object) -> list[tuple[str, object, object]]:
    """Name each differing field as (dotted field, value in a, value in b), sorted by field.

    A field that is on one side only shows `ABSENT` for the other. Lists of equal length are
    compared item by item ("layers.2"); lists of other lengths count as one value.
    """
    return _difference(plain(a), plain(b), "")


def _difference(a: object, b: object, field: str) -> list[tuple[str, object, object]]:
    if isinstance(a, dict) and isinstance(b, dict):
        pairs = {key: (a.get(key, ABSENT), b.get(key, ABSENT)) for key in sorted({*a, *b})}
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = {str(index): pair for index, pair in enumerate(zip(a, b, strict=True))}
    else:
        same = a is b or (ABSENT not in (a, b) and json.dumps(a) == json.dumps(b))
        return [] if same else [(field, a, b)]
    fields = []
    for key, (value_a, value_b) in pairs.items():
        fields += _difference(value_a, value_b, f"{field}.{key}" if field else key)
    return fields


def require_same(
    expected: Fingerprint | Sequence[Fingerprint],
    found: Fingerprint | Sequence[Fingerprint],
    *,
    where: str,
    advice: str,
) -> None:
    """Raise FingerprintMismatchError, naming field and both values, unless the two are equal.

    `where` says what was found ("cache/demo/nano.zarr"), `advice` what the user should do.
    """
    fields = difference(expected, found)
    if not fields:
        return
    field, value, found_value = fields[0][0], short(fields[0][1], 160), short(fields[0][2], 160)
    more = f" (and {len(fields) - 1} more: {', '.join(f[0] for f in fields[1:4])})"
    raise FingerprintMismatchError(
        f"{where}: expected {field or 'fingerprint'} = {value}, found {found_value}"
        f"{more if len(fields) > 1 else ''}; {advice}",
        fields,
    )


def short(value: object, most: int = 80) -> str:
    """The value as an error message shows it, which must stay one line."""
    text = repr(value)
    return text if len(text) <= most else text[:most] + "…"
