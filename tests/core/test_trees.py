"""JSON and YAML of anybody: each key once, bounded, and as the libraries read it otherwise."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import agiqa
from agiqa.core.trees import MOST_JSON, MOST_YAML, parse_json, parse_yaml, read_json, read_yaml

trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(trees)
def test_what_is_written_reads_back(tree: Any) -> None:
    assert parse_json(json.dumps(tree)) == tree
    assert parse_yaml(yaml.safe_dump(tree)) == tree


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' stands twice, first in line 1"),
        ("x: {p: [{b: 1, b: 2}]}", "line 1: the key 'b' stands twice"),
        ("1: a\n0x1: b\n", "line 2: the key '1' stands twice"),
        ("yes: a\ntrue: b\n", "line 2: the key 'True' stands twice"),
        ("x:\n  <<: {a: 1}\n  <<: {b: 1}\n", "line 3: the key '<<' stands twice"),
        ("? [a]\n: 1\n", "line 1: a key must be a word"),
        ("a: &x [*x]", "line 1: an alias holds itself"),
        ("[" * 5000, "more than 100 levels deep"),
        ("- " * 5000, "more than 100 levels deep"),
        ("a: 1\n---\na: 2\n", "line 2: but found another document"),
        ("a: b: c\n", "line 1: mapping values are not allowed here"),
        ("a: !!python/object/apply:os.system [ls]\n", "line 1: could not determine a constructor"),
        ("a: !!bool maybe", "a value that is not what its tag says"),
        ("a: !!timestamp soon", "a value that is not what its tag says"),
        (f"a: {'9' * 5000}", "Exceeds the limit"),
        ("a: \0", "unacceptable character"),
    ],
)
def test_yaml_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace("[", r"\[")) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)


def test_anchors_and_merges_work_within_bounds() -> None:
    text = "base: &base {lr: 1, epochs: 2}\nown:\n  <<: *base\n  lr: 3\nagain: *base\n"
    assert parse_yaml(text) == yaml.safe_load(text)
    laughs = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    laughs += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(ValueError, match="more than 100,000 values once its aliases"):
        parse_yaml("\n".join(laughs))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' stands twice in one object"),
        ('[{"b": {"c": 1, "d": 0, "c": 2}}]', "the key 'c' stands twice"),
        ("[" * 100_000, "more than 100 levels deep"),
        ('{"a":' * 500 + "1" + "}" * 500, "more than 100 levels deep"),
        ("{", "Expecting property name"),
        (b"\xff{}", "can't decode byte"),
        ("1" * 5000, "Exceeds the limit"),
    ],
)
def test_json_that_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text)


@given(
    st.recursive(
        st.none() | st.integers(-(2**63), 2**64 - 1) | st.text()
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    )
)  # fmt: skip
def test_what_agiqa_writes_reads_back_strictly(tree: Any) -> None:
    assert parse_json(json.dumps(tree), strict=True) == tree
    assert parse_json(json.dumps(tree, ensure_ascii=False).encode(), strict=True) == tree


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": NaN}', "NaN, a number that JSON does not have"),
        ("[-Infinity]", "-Infinity, a number"),
        ("[1e999]", "1e999, a number"),
        ("9" * 3000, "wider than 64 bits"),
        ("[18446744073709551616]", "wider than 64 bits"),
        ('["\\ud800"]', "half of a surrogate pair"),
        ('{"\\ud800": 1}', "half of a surrogate pair"),
        (lambda: json.dumps(dict.fromkeys(map(str, range(300_001)))), "more than 300,000 values"),
        (lambda: b"[" + b"[]," * 300_001 + b"[]]", "more than 300,000 values"),
    ],
)
def test_json_that_only_others_write_is_refused_strictly(
    text: str | Callable[[], str | bytes], message: str
) -> None:
    text = text() if callable(text) else text  # made when it is needed: a second each
    parse_json(text)
    with pytest.raises(ValueError, match=message):
        parse_json(text, strict=True)


@pytest.mark.parametrize(("read", "most"), [(read_json, MOST_JSON), (read_yaml, MOST_YAML)])
def test_files_are_regular_and_bounded(
    tmp_path: Path, read: Callable[[Path], Any], most: int
) -> None:
    real = tmp_path / "real"
    real.write_text('{"a": 1}')
    (tmp_path / "link").symlink_to(real)
    assert read(real) == read(tmp_path / "link") == {"a": 1}
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match="is a pipe or device"):
            read(name)
    with pytest.raises(IsADirectoryError):
        read(tmp_path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing")
    with real.open("wb") as file:
        file.truncate(most + 1)
    with pytest.raises(ValueError, match="MiB, the most that is read"):
        read(real)


def test_yaml_is_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("\ufeffa: 1\n".encode())
    assert read_yaml(path) == {"a": 1}
    path.write_bytes("a: é\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"is not UTF-8 text \(byte 4\)"):
        read_yaml(path)


def test_no_other_reader_is_used() -> None:
    """PyYAML and json would take the last of two keys without a word."""
    package = Path(agiqa.__file__).parent
    calls = ("yaml.safe_load", "yaml.load", "json.load(", "json.loads(")
    users = {
        path.name
        for path in package.rglob("*.py")
        if any(call in path.read_text("utf-8") for call in calls)
    }
    assert users == {"trees.py", "plain_text.py"}  # the latter of what a library just wrote
