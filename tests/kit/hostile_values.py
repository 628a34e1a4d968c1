"""Values that stand where others should, in trees such as those of JSON and YAML files."""

import json
import math
from collections.abc import Iterator
from typing import Any

DEEP: Any = []
for _ in range(300):
    DEEP = [DEEP]
# What stands where something else should.
WRONG: tuple[Any, ...] = (
    None, True, -1, 0, 10**6, 10**30, 0.5, math.nan, 1e308,
    "", "x", "../../x", "\x1b[2J", [], {}, ["x"], {"x": 1}, [[]], DEEP,
)  # fmt: skip
MISSING = object()


def places(tree: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a tree, of long lists the first."""
    if above:
        yield above
    children = tree.items() if isinstance(tree, dict) else []
    if isinstance(tree, list) and tree:
        children = [(0, tree[0])]
    for key, child in children:
        if key != "fingerprints":  # of libraries and models: compared, not used
            yield from places(child, (*above, key))


def changed(tree: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy of a tree with another value there, or without it."""
    copy = json.loads(json.dumps(tree))
    node = copy
    for key in place[:-1]:
        node = node[key]
    if value is MISSING:
        del node[place[-1]]
    else:
        node[place[-1]] = value
    return copy
