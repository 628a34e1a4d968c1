"""Headings, captions and cells of the tables as text."""

from agiqa.data.metric_names import FITTED
from agiqa.views.kit.number import DASH, dashes, number, without_zero
from agiqa.views.tables.grids import (
    AS_PUBLISHED,
    CROSS,
    FIGURES,
    MARKS,
    Column,
    Grid,
    GridRow,
    Result,
)

INTERVALS = "in brackets 95 % intervals"


def cell(result: Result | None, figure: str, intervals: bool = False) -> str:
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


def data(column: Column) -> str:
    """The data set and target of a column."""
    text = f"{column.dataset}, {column.target}"
    return f"{text} (synthetic)" if column.synthetic else text


def protocol(column: Column) -> str:
    """The protocol of a column; across data sets all have the same."""
    if column.protocol == AS_PUBLISHED:
        return "as published (protocols differ)"
    if column.comparable:
        return f"{column.protocol} (the same split file: comparable)"
    return "" if column.protocol == CROSS else column.protocol


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
    shown = [FIGURES[f] for f in FITTED if f in grid.figures]
    if shown:
        sentences.append(f"{' and '.join(shown)} after the 4-parameter logistic.")
    if intervals:
        sentences.append(f"{INTERVALS.capitalize()}.")
    sentences.append("An empty cell: no result.")
    rows = [
        {name: vars(value) for name, value in result.figures.items() if name in grid.figures}
        for result in grid.results
    ]
    if why := dashes(rows, grid.figures if intervals else ()):
        sentences.append(why)
    if not grid.across:
        sentences.append("Columns have protocols of their own and are not to be compared.")
    if any(column.protocol == AS_PUBLISHED for column in grid.columns):
        sentences.append("As published: protocols differ from ours, and among themselves.")
    if marks := {mark for result in grid.results for mark in result.marks}:
        sentences.append("; ".join(f"{m} {MARKS[m]}" for m in MARKS if m in marks) + ".")
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
            column = Column(result.dataset, result.target, result.protocol, result.synthetic)
            text = data(column) if grid.across else f"{data(column)}, {result.protocol}"
            columns.setdefault((row_name(row), row.ours, statement), []).append(text)
    merged: dict[tuple[str, ...], list[str]] = {}
    for (name, ours, statement), texts in columns.items():  # the models of one run say the same
        merged.setdefault((statement, "" if ours else name, *texts), []).append(name)
    return [
        f"{names[0] if len(names) == 1 else f'agiqa, {len(names)} models'}. {'; '.join(texts)}: "
        + statement
        for (statement, _, *texts), names in merged.items()
    ]
