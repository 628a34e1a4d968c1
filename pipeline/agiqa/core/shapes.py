"""Trees out of files of others (agiqa.core.trees), judged by the types that they should have.

A type is written as for mypy: `str`, `int`, `float`, `bool`, `Any`, `list[X]`, `dict[str, X]`,
`X | None`, or a TypedDict, whose further keys pass unseen, for newer versions may have some.
"""

import types
import typing
from typing import Any

from agiqa.core.errors import printable

MOST_INT, MOST_FLOAT = 1 << 63, 1e300  # beyond which sums of them are no numbers any more
NAMES = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false"}


def require(tree: object, hint: Any, path: str = "", partial: bool = False) -> None:
    """Refuse a tree that is not as `hint` says.

    Args:
        tree: what was read.
        hint: the type.
        path: where the tree stands in its file, such as `stores.semantic`.
        partial: whether keys may be missing at this level.

    Raises:
        ValueError: names the first value that is otherwise, what was expected and what was found.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return
    if typing.is_typeddict(hint):
        _require_keys(_of_kind(tree, dict, path), hint, path, partial)
    elif origin is dict:
        for key, value in _of_kind(tree, dict, path).items():
            require(value, inner[1], _within(path, key))
    elif origin is list:
        for number, value in enumerate(_of_kind(tree, list, path)):
            require(value, inner[0], f"{path}[{number}]")
    elif origin in (types.UnionType, typing.Union):
        if tree is not None or types.NoneType not in inner:
            (kind,) = [option for option in inner if option is not types.NoneType]
            require(tree, kind, path)
    elif not _is_plain(tree, hint):
        raise ValueError(f"{path}: expected {NAMES[hint]}, found {shown(tree)}")


def shown(tree: object) -> str:
    """A value for a message, of a long one its beginning."""
    if isinstance(tree, dict | list):
        return "an object" if isinstance(tree, dict) else "a list"
    text = printable(repr(tree))
    return text if len(text) <= 60 else f"{text[:50]}…"


def _require_keys(tree: dict[str, Any], hint: Any, path: str, partial: bool) -> None:
    for key, kind in typing.get_type_hints(hint).items():
        if key in tree:
            require(tree[key], kind, _within(path, key))
        elif key in hint.__required_keys__ and not partial:
            raise ValueError(f"{_within(path, key)} is missing")


def _of_kind(tree: object, kind: type, path: str) -> Any:
    if not isinstance(tree, kind):
        expected = "an object" if kind is dict else "a list"
        raise ValueError(f"{path or 'it'}: expected {expected}, found {shown(tree)}")
    return tree


def _is_plain(value: object, kind: Any) -> bool:
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and -MOST_FLOAT < value < MOST_FLOAT  # type: ignore[operator]
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MOST_INT
    return isinstance(value, kind)


def _within(path: str, key: str) -> str:
    short = printable(key)[:40]
    return f"{path}.{short}" if path else short
