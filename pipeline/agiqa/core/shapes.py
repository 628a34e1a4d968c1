"""Trees out of files of others (agiqa.core.trees), judged by the shape that they should have.

A shape is written as the tree it is of:

    str, int, float, bool, float | None   a value, or null; numbers are finite and not huge
    [X]                                   a list of X
    {"a": X, "b?": Y}                     an object; b may be missing, and further keys pass unseen,
                                          for newer versions may have some
    {"*": X}                              an object of which every value is X
    (X, None)                             X, or null
"""

from typing import Any, get_args

from agiqa.core.errors import printable

Shape = dict[str, Any]  # of an object
MOST_INT, MOST_FLOAT = 1 << 63, 1e300  # beyond which sums of them are no numbers any more
NAMES = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false"}


def require(tree: object, shape: Any, path: str = "", partial: bool = False) -> None:
    """Refuse a tree of another shape.

    Args:
        tree: what was read.
        shape: as above.
        path: where the tree stands in its file, such as `stores.semantic`.
        partial: whether keys may be missing at this level.

    Raises:
        ValueError: names the first value that is otherwise, what was expected and what was found.
    """
    if isinstance(shape, dict):
        _require_keys(_of_kind(tree, dict, path), shape, path, partial)
    elif isinstance(shape, list):
        for number, value in enumerate(_of_kind(tree, list, path)):
            require(value, shape[0], f"{path}[{number}]")
    elif options := shape if isinstance(shape, tuple) else get_args(shape):  # the second is null
        if tree is not None:
            require(tree, options[0], path)
    elif not _is_plain(tree, shape):
        raise ValueError(f"{path}: expected {NAMES[shape]}, found {shown(tree)}")


def shown(tree: object) -> str:
    """A value for a message, of a long one its beginning."""
    if isinstance(tree, dict | list):
        return "an object" if isinstance(tree, dict) else "a list"
    text = printable(repr(tree))
    return text if len(text) <= 60 else f"{text[:50]}…"


def _require_keys(tree: dict[str, Any], shape: dict[str, Any], path: str, partial: bool) -> None:
    if "*" in shape:
        for key, value in tree.items():
            require(value, shape["*"], _within(path, key))
        return
    for field, kind in shape.items():
        key = field.removesuffix("?")
        if key in tree:
            require(tree[key], kind, _within(path, key))
        elif key == field and not partial:
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
