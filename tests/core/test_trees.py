"""JSON and YAML of anybody: each key once, bounded, and as the libraries read it otherwise.

What agiqa writes is JSON that every reader takes.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import agiqa
from agiqa.cli.output import print_json
from agiqa.core.json_text import json_text, write_json
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


# Files that hash, compare or journal JSON of their own making, whose bytes must not change.
OWN_FORMATS = {
    "stage1/extractors/lmm/plain_text.py",
    "stage1/extractors/identity.py",
    "stage1/extractors/remote_code.py",
    "stage2/paper/inputs.py",
    "stage2/training/resume.py",
    "stage2/training/epochs.py",
    "store/fingerprint.py",
    "store/ledger/shelf.py",
    "store/ledger/lock.py",
    "store/ledger/segments.py",
    "store/files.py",
    "store/packs/pack_hdf5.py",
    "store/packs/pack_zarr.py",
    "store/remote.py",
    "store/upkeep/export.py",
    "views/report/results.py",
}


@dataclass(frozen=True)
class Figure:
    name: str
    value: float


def strict(text: str) -> Any:
    """As other programs read JSON: without Python's NaN and Infinity."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (math.nan, None),
        (-math.inf, None),
        (np.float32("nan"), None),
        (np.float32(0.5), 0.5),
        (np.float16("inf"), None),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([[1.0, np.nan], [np.inf, 2.0]]), [[1.0, None], [None, 2.0]]),
        (np.arange(3), [0, 1, 2]),
        ((1, [math.nan]), [1, [None]]),
        (
            {np.int64(3): math.nan, 4: 1, "a": {"b": math.inf}},
            {"3": None, "4": 1, "a": {"b": None}},
        ),
        (Figure("srcc", math.nan), {"name": "srcc", "value": None}),
        (Path("a/b"), "a/b"),
        ("ü𝄞<", "ü𝄞<"),
        (None, None),
        (True, True),
    ],
)
def test_whatever_is_no_number_is_null(value: object, plain: object) -> None:
    found = strict(json_text({"it": value}))["it"]
    assert found == plain
    assert type(found) is type(plain)


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(TREES)
def test_any_tree_is_json_that_every_reader_takes(tree: object) -> None:
    text = json_text(tree)
    strict(text.encode("utf-8").decode("utf-8"))
    assert strict(json_text(tree, ascii_only=True, indent=2)) == strict(text)
    assert json_text(tree, ascii_only=True).isascii()


def test_a_file_name_that_is_no_utf8_comes_back() -> None:
    name = b"caf\xe9\x1b.png".decode("utf-8", "surrogateescape") + "\x9b\u202e"
    text = json_text([name])
    assert text.isprintable()
    assert json.loads(text.encode("utf-8")) == [name]


def test_what_has_no_json_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError, match="no JSON value: set"):
        json_text({"a": {1, 2}})
    with pytest.raises(TypeError, match="no key of a JSON object: tuple"):
        json_text({(1, 2): 3})


def test_files_end_with_a_line(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": math.nan})
    assert (tmp_path / "a.json").read_text("utf-8") == '{\n  "a": null\n}\n'


def test_a_terminal_that_is_not_utf8_gets_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    import click

    @click.command()
    def command() -> None:
        print_json({"ü": math.nan})

    assert CliRunner(charset="latin-1").invoke(command).output == '{"\\u00fc": null}\n'
    assert CliRunner().invoke(command).output == '{"ü": null}\n'


def test_nothing_else_writes_json() -> None:
    root = Path(agiqa.__file__).parent
    others = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if any(call in path.read_text("utf-8") for call in ("json.dump", ".to_json("))
    }
    assert others == OWN_FORMATS | {"core/json_text.py"}
