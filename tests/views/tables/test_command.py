"""`agiqa table` as a user calls it."""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from agiqa.cli.compare import FORMATS, TABLE_FIGURES
from agiqa.views.tables import FORMATS as ALL_FORMATS
from agiqa.views.tables.grids import FIGURES as ALL_FIGURES
from kit.command import agiqa
from kit.run_files import metrics_of

table = partial(agiqa, "table")


def test_the_options_offer_what_there_is() -> None:
    assert tuple(TABLE_FIGURES) == tuple(ALL_FIGURES)
    assert tuple(FORMATS) == tuple(ALL_FORMATS)


def test_on_a_terminal(write_run: Callable[..., Path]) -> None:
    write_run("agiqa-3k/grouped")
    lonely = write_run("agiqa-3k/new", {})
    shown = table("--intervals")
    assert ".885 ± .009 [.865, .905]" in shown.stdout
    assert "agiqa-3k, quality: grouped" in shown.stdout
    assert ".8939" in shown.stdout
    assert "arXiv 2404.17762" in shown.stdout
    assert shown.stderr == f"Left out, not evaluated: {lonely} (agiqa evaluate {lonely})\n"
    ours = table("runs/agiqa-3k/grouped", "--no-published", "--models", "all", "--figure", "krcc")
    assert "MA-AGIQA" not in ours.stdout
    assert ours.stdout.count(".700 ± .009") == 2
    assert ours.stderr == ""


def test_across_data_sets_on_a_terminal(write_run: Callable[..., Path]) -> None:
    crossed = metrics_of(0.5, dataset="spaq", protocol="cross", trained_on=["agiqa-3k", "demo"])
    write_run("both", {"cross/spaq": crossed})
    shown = table()
    assert "tested on spaq, quality" in shown.stdout
    assert "trained on agiqa-3k + demo (grouped)" in " ".join(shown.stdout.split())
    assert ".5399" in shown.stdout


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.md", "### Results"),
        ("a.csv", "method,ours"),
        ("a.tex", "% \\usepackage{booktabs}"),
        ("a.HTML", "<!doctype html>"),
    ],
)
def test_the_format_follows_the_files_name(
    write_run: Callable[..., Path], name: str, start: str
) -> None:
    write_run("agiqa-3k/grouped")
    table("-o", name)
    assert Path(name).read_text("utf-8").startswith(start)
    table("--format", "csv", "-o", name)
    with Path(name).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows if row["ours"] == "true"]
    assert {row["marks"] for row in rows if row["method"] == "IPCE"} == {
        "the epoch was chosen on the reported side"
    }


def test_what_a_user_gets_wrong(write_run: Callable[..., Path]) -> None:
    for arguments, said in (
        ([], "runs: expected a run or a folder of runs, found none"),
        (["absent"], "absent: expected a run"),
    ):
        result = table(*arguments, status=1)
        assert result.stderr.startswith(f"Error: {said}")
        assert len(result.stderr.splitlines()) == 1
    write_run("agiqa-3k/grouped")
    for arguments, said in (
        (
            ["-o", "table.pdf"],
            "-o table.pdf: expected a name that ends in .md, .csv, .tex or .html",
        ),
        (["-o", "runs"], "is a directory"),
        (["--models", ","], "--models expects names such as moe,ridge, or all; found none"),
        (["--figure", "accuracy"], "'accuracy' is not one of 'srcc'"),
        (["--format", "pdf"], "'pdf' is not one of 'markdown'"),
    ):
        result = table(*arguments, status=2)
        assert said in " ".join(result.stderr.split())
    result = table("--models", "moe,forest", status=1)
    assert "no run has a model forest; there are: ridge_visual, moe, all" in result.stderr
