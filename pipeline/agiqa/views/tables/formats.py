"""The tables in words and in four formats: Markdown, CSV for programs, LaTeX with booktabs, HTML.

A `Sheet` is a grid in words, the same for all; CSV alone has the numbers themselves:

    method, ours, trained_on, dataset, target, protocol, synthetic, splits; then for each figure its
    value (ours: the median over splits), `_sd` over splits, `_low` and `_high` (95 % interval), and
    `_from` and `_to` where publications give a range; then what marks a published figure, the
    protocol in words, source and note, which also says why a figure is not defined. Names that a
    spreadsheet would take for formulas begin with an apostrophe (core/spreadsheets.py).
"""

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from agiqa.core.spreadsheets import safe_cell
from agiqa.data.metric_names import FITTED
from agiqa.views.kit.number import DASH, dashes, number, without_zero
from agiqa.views.kit.page import render as render_page
from agiqa.views.tables import grids
from agiqa.views.tables.grids import Column, Grid, GridRow, Result, Value

ABOUT = ("method", "ours", "trained_on", "dataset", "target", "protocol", "synthetic", "splits")
PARTS = ("", "_sd", "_low", "_high", "_from", "_to")
FORMATS = ("markdown", "csv", "latex", "html")
SUFFIXES = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".csv": "csv",
    ".tex": "latex",
    ".html": "html",
    ".htm": "html",
}
LATEX_HEAD = "% \\usepackage{booktabs}; wide tables: \\usepackage{graphicx} and \\resizebox\n"
LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "–": "--",
    "…": r"\ldots{}",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "°": r"\textdegree{}",
    "[": "{[}",  # after \\ it would open an optional argument
}


@dataclass(frozen=True)
class Sheet:
    """A grid in words, the same for all formats."""

    title: str
    caption: str
    heads: list[list[tuple[str, int]]]  # lines of headings: text, and how many figures it is over
    figures: list[str]  # heading of each column
    width: int  # figures of a column of the grid
    rows: list[tuple[str, bool, list[str]]]  # name, whether it is ours, cells
    sources: list[str]


def render(tables: Sequence[Grid], form: str, intervals: bool = False) -> str:
    """The grids as text of one of FORMATS; intervals stand in CSV whether asked for or not.

    LaTeX needs the package booktabs; the HTML page needs nothing from outside.
    """
    if form == "csv":
        return _csv(tables)
    sheets = [_sheet(grid, intervals) for grid in tables]
    if form == "markdown":
        return "\n".join(map(_markdown, sheets))
    if form == "latex":
        return LATEX_HEAD + "\n".join(map(_latex, sheets))
    return render_page("tables/page.html.j2", {"sheets": sheets}, ["tables/page.css"])


def format_of(path: Path) -> str | None:
    """The format that a file's name asks for; None where its suffix says nothing."""
    return SUFFIXES.get(path.suffix.lower())


def _sheet(grid: Grid, intervals: bool) -> Sheet:
    heads = [_spans(grid, lambda column: (data_name(column),))]
    if not grid.across:
        heads.append(_spans(grid, lambda column: (data_name(column), protocol_name(column))))
    return Sheet(
        title=title(grid),
        caption=caption(grid, intervals),
        heads=heads,
        figures=[grids.FIGURES[figure] for _ in grid.columns for figure in grid.figures],
        width=len(grid.figures),
        rows=[
            (
                row_name(row),
                row.ours,
                [cell_text(result, f, intervals) for result in row.cells for f in grid.figures],
            )
            for row in grid.rows
        ],
        sources=sources(grid),
    )


def _spans(grid: Grid, names: Callable[[Column], tuple[str, ...]]) -> list[tuple[str, int]]:
    """Headings over all columns that have the same names: the last name, figures below it."""
    return [
        (texts[-1], len(list(columns)) * len(grid.figures))
        for texts, columns in groupby(grid.columns, key=names)
    ]


def _markdown(sheet: Sheet) -> str:
    """A table as GitHub has them, with up to three lines in a heading."""

    def escaped(text: str) -> str:
        return re.sub(r"([\\|*_`<>])", r"\\\1", text)

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    above = [[escaped(text) for text, span in head for _ in range(span)] for head in sheet.heads]
    heads = ["<br>".join(filter(None, lines)) for lines in zip(*above, sheet.figures, strict=True)]
    return "\n".join(
        [
            f"### {sheet.title}\n",
            line(["Method", *heads]),
            line(["---", *["---:"] * len(heads)]),
            *(line([escaped(name), *cells]) for name, _, cells in sheet.rows),
            f"\n{sheet.caption}\n\nProtocols and sources:\n",
            *(f"- {escaped(source)}" for source in sheet.sources),
            "",
        ]
    )


def latex_escaped(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(LATEX.get(sign, sign) for sign in text)


def _latex(sheet: Sheet) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(latex_escaped, cells)) + r" \\"

    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{latex_escaped(sheet.title)}. {latex_escaped(sheet.caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * len(sheet.figures)}}}",
        r"\toprule",
    ]
    for head in sheet.heads:
        cells, rules, column = [""], "", 2
        for text, span in head:
            cells.append(rf"\multicolumn{{{span}}}{{c}}{{{latex_escaped(text)}}}")
            rules += rf"\cmidrule(lr){{{column}-{column + span - 1}}}"
            column += span
        lines += [" & ".join(cells) + r" \\", rules]
    lines += [line(["Method", *sheet.figures]), r"\midrule"]
    for group, (_, rows) in enumerate(groupby(sheet.rows, key=lambda row: row[1])):
        lines += [r"\midrule"] * (group > 0) + [line([name, *cells]) for name, _, cells in rows]
    lines += [r"\bottomrule", r"\end{tabular}", r"\par\medskip\raggedright\footnotesize"]
    sources = [rf"\item {latex_escaped(source)}" for source in sheet.sources]
    return "\n".join([*lines, r"\begin{itemize}", *sources, r"\end{itemize}", r"\end{table}", ""])


def _csv(tables: Sequence[Grid]) -> str:
    """One table of all grids, a line for each result, what is not known left empty."""
    figures = list(dict.fromkeys(figure for grid in tables for figure in grid.figures))
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    columns = [f"{figure}{part}" for figure in figures for part in PARTS]
    lines.writerow([*ABOUT, *columns, "marks", "said", "source", "note"])
    for row in (row for grid in tables for row in grid.rows):
        for result in filter(None, row.cells):
            lines.writerow(map(safe_cell, _csv_line(row, result, figures)))
    return out.getvalue()


def _csv_line(row: GridRow, result: Result, figures: Sequence[str]) -> list[str]:
    cells = [row.method, str(result.ours).lower(), "+".join(row.trained_on)]
    cells += [result.dataset, result.target, result.protocol, str(result.synthetic).lower()]
    cells.append("" if result.splits is None else str(result.splits))
    for figure in figures:
        cells += _csv_value(result.figures.get(figure, Value()))
    shown = {name: vars(value) for name, value in result.figures.items() if name in figures}
    note = " ".join(filter(None, (result.note, dashes([shown], figures))))
    marks = "; ".join(grids.MARKS[mark] for mark in result.marks)
    return [*cells, marks, result.protocol_note, result.source, note]


def _csv_value(value: Value) -> list[str]:
    """The PARTS of a figure; a published one with its own digits."""
    if len(value.printed) == 2:  # a range
        return ["", "", "", "", *value.printed]
    if value.printed:
        return [*value.printed, "", "", "", "", ""]
    numbers = (value.median, value.sd, *(value.interval or (None, None)))
    return [*("" if figure is None else f"{figure:.6g}" for figure in numbers), "", ""]


def cell_text(result: Result | None, figure: str, intervals: bool = False) -> str:
    """A figure as `.885 ± .009`, of one split as `.8929`, of a range `.882 to .887`, with marks.

    Empty where there is no result; a dash where a run has none, and `caption` says why.
    """
    value = result.figures.get(figure) if result else None
    if result is None or value is None:
        return ""
    marks = f" {''.join(result.marks)}".rstrip()
    if value.printed:
        return " to ".join(map(without_zero, value.printed)) + marks
    if value.median is None:
        return DASH
    digits = 4 if value.sd is None else 3
    text = without_zero(number(value.median, digits))
    if value.sd is not None:
        text += f" ± {without_zero(number(value.sd, digits))}"
    if intervals and value.interval is not None:
        low, high = (without_zero(number(end, digits)) for end in value.interval)
        return f"{text}{marks} [{low}, {high}]"
    return text + marks


def data_name(column: Column) -> str:
    """The data set and target of a column."""
    text = f"{column.dataset}, {column.target}"
    return f"{text} (synthetic)" if column.synthetic else text


def protocol_name(column: Column) -> str:
    """The protocol of a column; across data sets all have the same."""
    if column.protocol == grids.AS_PUBLISHED:
        return "as published (protocols differ)"
    if column.comparable:
        return f"{column.protocol} (the same split file: comparable)"
    return "" if column.protocol == grids.CROSS else column.protocol


def title(grid: Grid) -> str:
    """Say what the table is of."""
    if grid.across:
        return "Across data sets: rows say what was trained on, columns what was tested on"
    return "Results by data set, target and protocol"


def row_name(row: GridRow) -> str:
    """The method, and across data sets what it was trained on."""
    if not row.trained_on:
        return row.method
    trained_by = f" ({row.trained_by})" if row.trained_by else ""
    return f"{row.method}, trained on {' + '.join(row.trained_on)}{trained_by}"


def caption(grid: Grid, intervals: bool = False) -> str:
    """Say how to read the cells."""
    sentences = ["Test sides."]
    if any(result.ours and (result.splits or 0) > 1 for result in grid.results):
        sentences.append("Ours: median ± sd over splits.")
    if any(result.ours and result.splits == 1 for result in grid.results):
        sentences.append("Of one split: four digits, no deviation.")
    shown = [grids.FIGURES[f] for f in FITTED if f in grid.figures]
    if shown:
        sentences.append(f"{' and '.join(shown)} after the 4-parameter logistic.")
    if intervals:
        sentences.append("In brackets 95 % intervals.")
    sentences.append("An empty cell: no result.")
    rows = [
        {name: vars(value) for name, value in result.figures.items() if name in grid.figures}
        for result in grid.results
    ]
    if why := dashes(rows, grid.figures if intervals else ()):
        sentences.append(why)
    if not grid.across:
        sentences.append("Columns have protocols of their own and are not to be compared.")
    if any(column.protocol == grids.AS_PUBLISHED for column in grid.columns):
        sentences.append("As published: protocols differ from ours, and among themselves.")
    if marks := {mark for result in grid.results for mark in result.marks}:
        sentences.append(
            "; ".join(f"{m} {grids.MARKS[m]}" for m in grids.MARKS if m in marks) + "."
        )
    if any(column.synthetic for column in grid.columns):
        sentences.append("Synthetic: severity of degradation, not opinion.")
    return " ".join(sentences)


def sources(grid: Grid) -> list[str]:
    """For every result where it is from and by which protocol; what is the same is said once."""
    columns: dict[tuple[str, bool, str], list[str]] = {}
    for row in grid.rows:
        for result in filter(None, row.cells):
            note = f" ({result.note})" if result.note else ""
            source = result.source  # a publication opens a sentence, a folder stays as it is
            source = source if "/" in source else source[:1].upper() + source[1:]
            statement = f"{result.protocol_note}. {source}{note}."
            text = data_name(result.column) + f", {result.protocol}" * (not grid.across)
            columns.setdefault((row_name(row), row.ours, statement), []).append(text)
    merged: dict[tuple[str, ...], list[str]] = {}
    for (name, ours, statement), texts in columns.items():  # the models of one run say the same
        merged.setdefault((statement, "" if ours else name, *texts), []).append(name)
    return [
        f"{names[0] if len(names) == 1 else f'agiqa, {len(names)} models'}. {'; '.join(texts)}: "
        + statement
        for (statement, _, *texts), names in merged.items()
    ]
