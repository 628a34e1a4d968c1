"""Cells of text that a spreadsheet would run are told from those that it would not."""

import csv
import io

import pytest

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
