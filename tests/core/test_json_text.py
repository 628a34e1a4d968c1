import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import agiqa
from agiqa.cli.output import print_json
from agiqa.core.json_text import json_text, write_json

# Files that hash, compare or journal JSON of their own making, whose bytes must not change.
OWN_FORMATS = {
    "stage1/extractors/lmm/plain_text.py",
    "stage1/extractors/loading.py",
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


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
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
