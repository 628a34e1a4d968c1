"""Text from outside: what a spreadsheet would run, and what a terminal would obey."""

import csv
import io
import json
import logging
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import agiqa.cli
from agiqa.cli import main
from agiqa.cli.output import PlainFormatter, console, echo, print_table
from agiqa.core.errors import printable
from agiqa.core.spreadsheets import plain_cell, safe_cell
from agiqa.views.tables import render
from agiqa.views.tables.grids import Result, Value, grids_of


@pytest.mark.parametrize(
    "text",
    [
        "=HYPERLINK(\"http://x\")", "+1+1", "-2+3+cmd|' /C calc'!A0", "@SUM(A1)", " =1+1",
        "\t=1", "\rx", "\nx", "＝1+1", "-", "--1", "-inf", "\u00a0=1",
    ],
)  # fmt: skip
def test_formulas_become_text(text: str) -> None:
    assert safe_cell(text) == f"'{text}"
    assert plain_cell(safe_cell(text)) == text


@pytest.mark.parametrize(
    "text", ["", "a.png", "-1.5", "+3", "-1e-05", "a=b", "x -y", "'=1", "0.5", " a", "-3."]
)
def test_all_else_stays(text: str) -> None:
    assert safe_cell(text) == text


def test_a_runs_name_is_no_formula_in_the_table() -> None:
    row = Result("=cmd()", "@a", "mos", "grouped", {"srcc": Value(0.5)}, True, "said", "+here")
    grids = grids_of([row], [], ("srcc",))
    (line,) = csv.DictReader(io.StringIO(render(grids, "csv")))
    assert (line["method"], line["dataset"]) == ("'=cmd()", "'@a")
    assert (line["srcc"], line["source"]) == ("0.5", "'+here")


EVIL = "a\x1b]0;owned\x07\x9b31m\u202eb\r\udcff.png"


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_in_a_text_is_obeyed_and_json_reads_it_back(text: str) -> None:
    shown = printable(text)
    shown.encode("utf-8")
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", shown)
    written = json.dumps(text, ensure_ascii=False)
    assert json.loads(printable(written, lines=True)) == text


def test_ordinary_names_stay_as_they_are() -> None:
    for name in ("Bücher/猫 – 1.png", "a\\b", "👩‍🎨.png", "[red]x"):
        assert printable(name) == name
    assert printable("a\tb\nc", lines=True) == "a\tb\nc"
    assert printable("a\tb\nc") == "a\\u0009b\\u000ac"


def test_lines_logs_and_tables_escape_it(capsys: pytest.CaptureFixture[str]) -> None:
    echo(f"Skipped {EVIL}")
    print_table([EVIL, "n"], [[EVIL, "1"]], title=EVIL, caption=EVIL)
    out = io.StringIO()
    console(file=out, force_terminal=True, width=200, highlight=False).print(
        "[bold]x[/]", EVIL, markup=True
    )
    record = logging.LogRecord("agiqa", logging.WARNING, "", 0, "left out %s", (EVIL,), None)
    seen = [*capsys.readouterr(), PlainFormatter("%(message)s").format(record)]
    bold = "\x1b[1mx\x1b[0m"
    assert bold in out.getvalue()
    for text in [*seen, out.getvalue().replace(bold, "")]:
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\udcff]", text)
    assert "\\u001b]0;owned\\u0007" in seen[0]


def test_an_error_is_one_line_without_escapes() -> None:
    result = CliRunner().invoke(main, ["evaluate", f"no\x1b[2J{chr(0x9B)}"])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "no\\u001b[2J\\u009b" in result.stderr


def test_every_command_prints_through_it() -> None:
    """What the ranking draws on is score.py's own console, since pictures are escapes."""
    for file in Path(agiqa.cli.__file__).parent.rglob("*.py"):
        text = file.read_text()
        if file.name != "output.py":
            assert "click.echo(" not in text, f"{file}: echo of agiqa.cli.output escapes names"
        if file.name not in ("output.py", "score.py"):
            assert "Console(" not in text, f"{file}: console of agiqa.cli.output escapes names"
