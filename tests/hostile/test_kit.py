"""The limits in which the other tests here run do hold, and a made attack does show."""

import re
from collections.abc import Callable
from pathlib import Path


def test_a_command_that_does_not_exist_ends_in_one_line(attack: Callable) -> None:
    assert attack("score", "no.png", "--run", "nowhere").error.startswith("Error: ")


def test_every_test_that_the_list_names_is_there() -> None:
    """README.md says which test holds which row; a renamed test must not leave it behind."""
    tests = Path(__file__).parents[1]
    defined = {
        name
        for file in tests.rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", file.read_text("utf-8"))
    }
    listed = Path(__file__).with_name("README.md").read_text("utf-8")
    rows = [line for line in listed.splitlines() if re.match(r"\| (?!found)", line)]
    assert len(rows) > 80
    for row in rows:
        assert "test_" in row, row
        for path in re.findall(r"tests/[\w/]+\.py", row):
            assert (tests.parent / path).is_file(), path
        for name in re.findall(r"\b(test_\w+)\b(?!\.py)", row):
            assert any(known.startswith(name) for known in defined), name
