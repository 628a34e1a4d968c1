"""JSON and YAML as nested mappings and lists: the one reader of each, for files of anybody.

What is read is bounded in bytes, depth and, since YAML's aliases multiply, in nodes; and every key
stands once, where the libraries would take the last of two without a word. Whatever is wrong is a
ValueError; the caller knows what the file is for and what to do about it.
"""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from agiqa.core.regular_files import MIB, read_regular

MOST_JSON = 64 * MIB
MOST_YAML = MIB // 4
MOST_LEVELS = 100
MOST_VALUES = 300_000  # of a JSON tree that only agiqa writes
MOST_NODES = 100_000  # of a YAML tree, an alias counted as what it stands for
_MERGE = "tag:yaml.org,2002:merge"  # the key `<<`


def read_json(path: Path, most: int = MOST_JSON) -> Any:
    """The tree in a JSON file of at most `most` bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, too large, no JSON, too deep, or has a key twice.
    """
    return parse_json(read_regular(path, most))


def parse_json(text: str | bytes, strict: bool = False) -> Any:
    """The tree in a JSON text; ValueError as `read_json`.

    With `strict`, for what only agiqa writes, also for more than MOST_VALUES values, for numbers
    that are not finite or wider than 64 bits, and for half of a surrogate pair.
    """
    hooks: dict[str, Any] = {}
    if strict:
        _require_few(text)
        hooks = {"parse_int": _integer, "parse_float": _finite, "parse_constant": _finite}
    try:
        tree = json.loads(text, object_pairs_hook=_object, **hooks)
    except RecursionError:
        raise ValueError(f"more than {MOST_LEVELS} levels deep") from None
    level, depth = [tree], 0
    while level:
        if (depth := depth + 1) > MOST_LEVELS:
            raise ValueError(f"more than {MOST_LEVELS} levels deep")
        if strict:
            for node in level:
                _require_unicode(node)
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
    return tree


def _require_few(text: str | bytes) -> None:
    signs: Any = ",[{" if isinstance(text, str) else (b",", b"[", b"{")
    if sum(map(text.count, signs)) > MOST_VALUES:
        raise ValueError(f"more than {MOST_VALUES:,} values")


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
        raise ValueError("a number wider than 64 bits")
    return int(digits)


def _finite(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"{digits[:20]}, a number that JSON does not have")
    return value


def _require_unicode(node: Any) -> None:
    for text in node if isinstance(node, dict) else (node,):
        if isinstance(text, str) and not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise ValueError("half of a surrogate pair") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        keys = Counter(key for key, _ in pairs)
        raise ValueError(f"the key {keys.most_common(1)[0][0]!r} stands twice in one object")
    return tree


def read_yaml(path: Path) -> Any:
    """The tree in a YAML file of UTF-8 text, None if it is empty.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, too large, no YAML of plain values, too deep, or has a
            key twice (named with its lines).
    """
    try:
        text = read_regular(path, MOST_YAML).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text (byte {error.start + 1})") from None
    return parse_yaml(text)


def parse_yaml(text: str) -> Any:
    """The tree in a YAML text; ValueError as `read_yaml`."""
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _count(root, loader, {}, [])
        return loader.construct_document(root)
    except RecursionError:
        raise ValueError(f"more than {MOST_LEVELS} levels deep") from None
    except yaml.YAMLError as error:
        raise ValueError(_reason(error)) from None
    except (TypeError, OverflowError, AttributeError, LookupError) as error:  # an unfit tag
        raise ValueError(f"a value that is not what its tag says ({error})") from None


def _count(
    node: yaml.Node, loader: yaml.SafeLoader, counted: dict[yaml.Node, int], above: list[yaml.Node]
) -> int:
    """Nodes that `node` stands for with its aliases written out; checks keys on the way."""
    if node in above:
        raise ValueError(f"{_line(node)}: an alias holds itself")
    if len(above) >= MOST_LEVELS:
        raise ValueError(f"{_line(node)}: more than {MOST_LEVELS} levels deep")
    if node not in counted:
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            _require_single_keys(node, loader)
            inner = [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        nodes = 1 + sum(_count(child, loader, counted, [*above, node]) for child in inner)
        if nodes > MOST_NODES:
            raise ValueError(
                f"{_line(node)}: more than {MOST_NODES:,} values once its aliases are written out"
            )
        counted[node] = nodes
    return counted[node]


def _require_single_keys(node: yaml.MappingNode, loader: yaml.SafeLoader) -> None:
    """Refuse two keys that a dict takes for one, such as `1` and `0x1`, and keys that are none."""
    lines: dict[Any, str] = {}
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise ValueError(f"{_line(key_node)}: a key must be a word, not a list or mapping")
        merge = key_node.tag == _MERGE
        key = key_node.value if merge else loader.construct_object(key_node)
        if key in lines:
            raise ValueError(
                f"{_line(key_node)}: the key '{key}' stands twice, first in {lines[key]}: "
                "rename or remove one"
            )
        lines[key] = _line(key_node)


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"


def _reason(error: yaml.YAMLError) -> str:
    """What PyYAML says, without its excerpt of the text."""
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"line {mark.line + 1}: {reason}" if mark else reason
