"""Trees are judged by type, and the first wrong place is named."""

from typing import Any

import pytest

from agiqa.core.shapes import require

PART = {"names": [str], "mean?": float | None}
TREE = {"count": int, "parts": {"*": PART}, "told?": bool, "part?": (PART, None)}
GOOD = {"count": 1, "parts": {"a": {"names": ["x"], "mean": None, "new": [1]}}, "told": True}


def test_what_is_as_it_should_be_passes() -> None:
    require(GOOD, TREE)
    require({"count": 1}, TREE, partial=True)
    require(3, float)
    require(None, float | None)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([], "it: expected an object, found a list"),
        ({"parts": {}}, "count is missing"),
        (GOOD | {"count": True}, "count: expected a whole number, found True"),
        (GOOD | {"count": 1.0}, "count: expected a whole number, found 1.0"),
        (GOOD | {"count": 1 << 70}, "count: expected a whole number, found 1180"),
        (GOOD | {"told": 1}, "told: expected true or false, found 1"),
        (GOOD | {"parts": {"a": {"names": "x"}}}, "parts.a.names: expected a list, found 'x'"),
        (GOOD | {"parts": {"a": {"names": [3]}}}, r"parts.a.names\[0\]: expected text, found 3"),
        (
            GOOD | {"parts": {"a": {"names": [], "mean": float("nan")}}},
            "parts.a.mean: expected a finite number, found nan",
        ),
        (GOOD | {"parts": {"\x1b[2J": 1}}, r"parts.\\u001b\[2J: expected an object, found 1"),
        (GOOD | {"told": "x" * 999}, "told: expected true or false, found 'xxx.{46}…$"),
    ],
)
def test_the_first_wrong_place_is_named(tree: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        require(tree, TREE)
