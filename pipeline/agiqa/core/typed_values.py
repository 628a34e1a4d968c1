"""From nested mappings, as YAML gives them, to dataclasses, by what their annotations say.

What a field may be stands beside it: `Annotated[int, Range(1, 256)]`, `Literal["zarr", "h5"]`,
`int | Literal["preset"]`. A wrong value or an unknown key is one line that names the key, what was
expected and what was found.
"""

import contextlib
import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from agiqa.core.errors import AgiqaError

Class = TypeVar("Class")


@dataclasses.dataclass(frozen=True)
class Range:
    """Both ends of a number, which must be finite, and a condition, also in words."""

    least: int | None = None
    most: int | None = None
    condition: Callable[[float], bool] | None = None
    words: str = ""

    def refusal(self, value: float) -> str:
        """Say what the value must be; "" if it is."""
        if self.least is not None and value < self.least:
            return f"must be at least {self.least}"
        if self.most is not None and value > self.most:
            return f"must be at most {self.most:,}"
        if not math.isfinite(value):
            return "must be a finite number"
        return f"must be {self.words}" if self.condition and not self.condition(value) else ""


@dataclasses.dataclass(frozen=True)
class Matching:
    """A pattern that a text matches as a whole, in words."""

    words: str
    pattern: str

    def refusal(self, value: str) -> str:
        """Say what the value is expected to be; "" if it is."""
        return "" if re.fullmatch(self.pattern, value) else f"expects {self.words}"


def build(cls: type[Class], tree: Mapping[str, Any], prefix: str, file: str) -> Class:
    """Make a dataclass of a mapping; what it leaves out has its default.

    Args:
        cls: the dataclass.
        tree: values, nested as its fields are.
        prefix: what stands before the keys in messages, such as `paper.`.
        file: begins a message, such as the file's name.

    Raises:
        AgiqaError: an unknown key, with the nearest known one, or a wrong value.
    """
    hints = annotations(cls)
    for key in tree:
        if key not in hints:
            near = [name for name in hints if str(key).startswith(name)]  # lrate: lr, not gate
            near = near or difflib.get_close_matches(str(key), hints, n=1)
            hint = f"did you mean '{prefix}{near[0]}'?" if near else f"valid: {', '.join(hints)}."
            raise AgiqaError(f"{file}: unknown setting '{prefix}{key}'; {hint}")
    return cls(**{key: _field(tree[key], hints[key], f"{prefix}{key}", file) for key in tree})


def annotations(cls: type) -> dict[str, Any]:
    """Give the annotations of a dataclass's fields, what stands beside the types included."""
    return typing.get_type_hints(cls, include_extras=True)


def _field(value: Any, hint: Any, key: str, file: str) -> object:
    """Convert one field: a section, a mapping of sections or of values, or a value."""
    if typing.get_origin(hint) is Mapping:
        item = typing.get_args(hint)[1]
        entries = _section(value, key, file, may_be_empty=True)
        if not dataclasses.is_dataclass(item):
            return {k: convert(v, item, f"{key}.{k}", file) for k, v in entries.items()}
        sections = {k: _section(v, f"{key}.{k}", file, True) for k, v in entries.items()}
        return {
            k: build(typing.cast(type, item), section, f"{key}.{k}.", file)
            for k, section in sections.items()
        }
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), _section(value, key, file), f"{key}.", file)
    return convert(value, hint, key, file)


def _section(value: Any, key: str, file: str, may_be_empty: bool = False) -> Mapping[str, Any]:
    if value is None and may_be_empty:
        return {}
    if not isinstance(value, Mapping):
        raise AgiqaError(f"{file}: '{key}' is a section, found a {kind_of(value)}.")
    return value


def convert(value: Any, hint: Any, key: str, file: str) -> object:
    """Give the value as its annotation has it; ints pass for floats, lists become tuples.

    Raises:
        AgiqaError: it is of another type, out of choice or out of range.
    """
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise AgiqaError(f"{file}: '{key}' expects a list, found {_shown(value)}.")
        return tuple(convert(entry, typing.get_args(hint)[0], key, file) for entry in value)
    word = ""  # that may stand instead of the value
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint, other = typing.get_args(hint)
        (word,) = typing.get_args(other)
        if value == word:
            return value
    limit: Any = None
    if typing.get_origin(hint) is Annotated:
        hint, limit = typing.get_args(hint)
    choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
    plain: type = str if choices else hint
    if plain is float:
        value = _as_float(value)
    if not isinstance(value, plain) or (plain is int and isinstance(value, bool)):
        expected = _NAMES[plain] + (f" or {word}" if word else "")
        raise AgiqaError(f"{file}: '{key}' expects {expected}, found {_shown(value)}.")
    if choices and value not in choices:
        raise AgiqaError(f"{file}: '{key}' is one of {', '.join(choices)}; found {_shown(value)}.")
    if plain is float and limit is None:
        limit = Range()
    if limit is not None and (wrong := limit.refusal(value)):
        raise AgiqaError(f"{file}: '{key}' {wrong}, found {_shown(value)}.")
    return value


def _as_float(value: Any) -> Any:
    """Take whole numbers, and text that YAML 1.1 does not read as a number, such as 1e-3."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def kind_of(value: object) -> str:
    """Name what a value is, for messages."""
    return {list: "list", dict: "mapping", str: "text", int: "number", float: "number"}.get(
        type(value), type(value).__name__
    )


_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _shown(value: object) -> str:
    """Show the value as it is written, of a long one its beginning."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:90]}…"
