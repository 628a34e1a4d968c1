"""Each format says the same; what is missing is empty, and names stay as they are."""

import csv
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from agiqa.views.tables import FORMATS, find_results, grids_of, published_results, render
from agiqa.views.tables.formats import latex_escaped
from kit.run_files import metrics_of

ODD = "my_data|set & 100%"
SIZES = {"train": 2087, "val": 298, "test": 597, "same_group": 597, "same_file": 2}
PAPER_SPLIT = {"protocol": "paper", "splits": 1, "leaks": [SIZES | {"same_prompt": 597}]}
PAPER = "ca202e225b4b" + "0" * 52  # begins as the digest of the published results' split file


@pytest.fixture
def rendered(write_run: Callable[..., Path]) -> Callable[..., str]:
    write_run("agiqa-3k/grouped")
    single = metrics_of(0.8929, splits_sha256=PAPER, **PAPER_SPLIT)
    write_run("agiqa-3k/paper", {"": single})
    write_run("odd_name", {"": metrics_of(dataset=ODD, synthetic=True)})
    crossed = metrics_of(0.5, dataset="spaq", protocol="cross", trained_on=["agiqa-3k"])
    write_run("agiqa-3k/crossed", {"cross/spaq": crossed})

    def rendered(form: str, intervals: bool = False) -> str:
        found = find_results([Path("runs")]).results
        return render(grids_of(found, published_results(), ("srcc", "rmse")), form, intervals)

    return rendered


class Cells(HTMLParser):
    """The rows of every table of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1] += [""] * int(dict(attrs).get("colspan") or 1)
        self.inside = tag in ("th", "td", "small")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.tables[-1][-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.inside = False


def _rows(text: str, form: str) -> dict[str, list[str]]:
    """The first table's cells by method."""
    if form == "html":
        rows = Cells(text).tables[0]
    elif form == "markdown":
        lines = [line for line in text.split("###")[1].splitlines() if line.startswith("|")]
        rows = [[cell.strip() for cell in line[1:-1].split(" |")] for line in lines]
    else:
        inside = text.split(r"\midrule", 1)[1].split(r"\bottomrule")[0]
        rows = [
            [cell.strip().replace(r"$\pm$", "±") for cell in line.removesuffix(r"\\").split(" & ")]
            for line in inside.splitlines()
            if " & " in line
        ]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize("form", ["markdown", "latex", "html"])
def test_a_row_is_a_method_and_a_gap_is_empty(rendered: Callable[..., str], form: str) -> None:
    rows = _rows(rendered(form), form)
    # grouped, ipce, paper, as published of agiqa-3k, grouped of the odd one: SRCC and RMSE each
    leaked, selected = (r"\textdagger{}", r"\textdaggerdbl{}") if form == "latex" else ("†", "‡")
    published = [f".8939 {leaked}", f".3756 {leaked}"]
    assert rows["MA-AGIQA"] == [*[""] * 4, *published, *[""] * 4]
    assert rows["IPCE"][2] == f".8841 {selected}"
    assert rows["M3-AGIQA"][6] == f".9045 {leaked}{selected}"
    assert rows["DeQA-Score, zero-shot"] == [*[""] * 6, ".729 to .745", *[""] * 3]
    ours = rows["agiqa: mixture of experts on nano and nano-vision"]
    twice = [".885 ± .009", "1.250 ± .009"]
    assert ours == [*twice, "", "", f".8929 {leaked}", f"1.2500 {leaked}", "", "", *twice]


@pytest.mark.parametrize("form", FORMATS)
def test_protocols_and_sources_are_said(rendered: Callable[..., str], form: str) -> None:
    text = rendered(form)
    for said in (
        "arXiv 2404.17762", "random.Random", "runs/agiqa-3k/grouped", "as published",
        "the prompts of 597 of 597 test images are in training",
    ):  # fmt: skip
        assert said in text


@pytest.mark.parametrize("form", ["markdown", "latex", "html"])
def test_what_is_synthetic_is_said(rendered: Callable[..., str], form: str) -> None:
    text = rendered(form)
    assert "quality (synthetic)" in text
    assert "Synthetic: severity of degradation, not opinion." in text


def test_intervals_are_an_option(rendered: Callable[..., str]) -> None:
    assert "[" not in _rows(rendered("html"), "html")["MA-AGIQA"]
    shown = _rows(rendered("html", True), "html")
    ours = shown["agiqa: mixture of experts on nano and nano-vision"]
    assert ours[0] == ".885 ± .009 [.865, .905]"
    assert ours[4] == ".8929 † [.8729, .9129]"
    assert shown["MA-AGIQA"][4] == ".8939 †"


def test_csv_for_programs(rendered: Callable[..., str]) -> None:
    rows = list(csv.DictReader(io.StringIO(rendered("csv"))))
    by = {(r["method"], r["dataset"], r["protocol"], r["trained_on"]): r for r in rows}
    assert len(by) == len(rows)
    method = "agiqa: mixture of experts on nano and nano-vision"
    ours = by[method, "agiqa-3k", "grouped", ""]
    assert (ours["srcc"], ours["srcc_sd"], ours["rmse"]) == ("0.8848", "0.0093", "1.25")
    assert (ours["srcc_low"], ours["srcc_high"]) == ("0.8648", "0.9048")
    assert (ours["ours"], ours["splits"], ours["synthetic"]) == ("true", "10", "false")
    single = by[method, "agiqa-3k", "paper", ""]
    assert (single["srcc"], single["srcc_sd"], single["splits"]) == ("0.8929", "", "1")
    theirs = by["MA-AGIQA", "agiqa-3k", "paper", ""]
    assert (theirs["srcc"], theirs["rmse"], theirs["splits"], theirs["ours"]) == (
        "0.8939", "0.3756", "", "false")  # fmt: skip
    assert theirs["marks"] == single["marks"] == "test prompts are in training"
    assert ours["marks"] == ""
    spread = by["DeQA-Score, zero-shot", "agiqa-3k", "as published", ""]
    assert (spread["srcc"], spread["srcc_from"], spread["srcc_to"]) == ("", "0.729", "0.745")
    assert by[method, ODD, "grouped", ""]["synthetic"] == "true"
    assert by["MA-AGIQA", "agiqa-3k", "cross", "aigiqa-20k"]["krcc"] == "0.6083"
    assert by[method, "spaq", "cross", "agiqa-3k"]["srcc"] == "0.5"


def test_names_with_signs_of_the_format(rendered: Callable[..., str]) -> None:
    assert r"my\_data\|set & 100%" in rendered("markdown")
    assert r"my\_data|set \& 100\%" in rendered("latex")
    assert "my_data|set &amp; 100%" in rendered("html")
    assert latex_escaped("\\a~b^c#d$e{f}") == (
        r"\textbackslash{}a\textasciitilde{}b\textasciicircum{}c\#d\$e\{f\}"
    )


def test_latex_is_well_formed(rendered: Callable[..., str]) -> None:
    text = rendered("latex", True)
    opened = re.findall(r"\\begin\{(\w+)\}", text)
    assert sorted(opened) == sorted(re.findall(r"\\end\{(\w+)\}", text))
    bare = re.sub(r"\\[\\&%$#_{}]", "", "\n".join(text.splitlines()[1:]))
    assert bare.count("{") == bare.count("}")
    assert not re.findall(r"[#~^%_]", bare)
    for table in text.split(r"\begin{tabular}")[1:]:
        spec, inside = table.split("\n", 1)
        width = spec.count("r") + spec.count("l")
        for line in inside.split(r"\end{tabular}")[0].splitlines():
            spans = [int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line)]
            if line.endswith(r"\\"):
                assert line.replace(r"\&", "").count("&") + 1 + sum(spans) == width


def test_the_page_needs_nothing_from_outside(rendered: Callable[..., str]) -> None:
    page = rendered("html")
    assert not re.search(r"<(script|link|img|iframe)|https?://|url\(|@import| style=", page)
    assert "default-src 'none'; style-src 'sha256-" in page
    widths = [sorted({len(row) for row in table}) for table in Cells(page).tables]
    assert [len(width) for width in widths] == [1, 1]  # every row as wide as its head
