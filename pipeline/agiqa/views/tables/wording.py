"""Every number and heading of the tables as text, formatted here and nowhere else."""

from collections.abc import Sequence

from agiqa.data.metric_names import DASH, FITTED, dashes
from agiqa.views.tables.grids import Column, Grid, Row
from agiqa.views.tables.results import AS_PUBLISHED, CROSS, FIGURES, Result, Value

INTERVALS = "in brackets 95 % intervals"


def cell(result: Result | None, figure: str, intervals: bool = False) -> str:
    """A figure as `.885 ± .009`, of one split as `.8929`, of a range `.882 to .887`.

    Empty where there is no result; a dash where a run has none, and `caption` says why.
    """
    value = result.figures.get(figure) if result else None
    if value is None:
        return ""
    if value.printed:
        return " to ".join(map(_plain, value.printed))
    if value.median is None:
        return DASH
    digits = 4 if value.sd is None else 3
    text = number(value.median, digits)
    if value.sd is not None:
        text += f" ± {number(value.sd, digits)}"
    return text + (_interval(value, digits) if intervals else "")


def number(value: float, digits: int) -> str:
    """Without the zero before the point, as the field prints correlations; a true minus sign."""
    return _plain(f"{round(value, digits) + 0.0:.{digits}f}")


def _plain(text: str) -> str:
    sign, text = ("−", text[1:]) if text.startswith("-") else ("", text)
    return sign + (text[1:] if text.startswith("0.") else text)


def _interval(value: Value, digits: int) -> str:
    if value.interval is None:
        return ""
    low, high = (number(end, digits) for end in value.interval)
    return f" [{low}, {high}]"


def data(column: Column) -> str:
    """The data set and target of a column."""
    text = f"{column.dataset}, {column.target}"
    return f"{text} (synthetic)" if column.synthetic else text


def protocol(column: Column) -> str:
    """The protocol of a column; across data sets all have the same."""
    if column.protocol == AS_PUBLISHED:
        return "as published (protocols differ)"
    return "" if column.protocol == CROSS else column.protocol


def heading(figure: str) -> str:
    """Of a figure."""
    return FIGURES[figure][0]


def title(grid: Grid) -> str:
    """What the table is."""
    if grid.across:
        return "Across data sets: rows say what was trained on, columns what was tested on"
    return "Results by data set, target and protocol"


def row_name(row: Row) -> str:
    """The method, and across data sets what it was trained on."""
    if not row.trained_on:
        return row.method
    by = f" ({row.trained_by})" if row.trained_by else ""
    return f"{row.method}, trained on {' + '.join(row.trained_on)}{by}"


def caption(grid: Grid, intervals: bool = False) -> str:
    """How to read the cells."""
    said = ["Test sides."]
    if any(each.ours and (each.splits or 0) > 1 for each in grid.results):
        said.append("Ours: median ± sd over splits.")
    if any(each.ours and each.splits == 1 for each in grid.results):
        said.append("Of one split: four digits, no deviation.")
    shown = [heading(f) for f in FITTED if f in grid.figures]
    if shown:
        said.append(f"{' and '.join(shown)} after the 4-parameter logistic.")
    if intervals:
        said.append(f"{INTERVALS.capitalize()}.")
    said.append("An empty cell: no result.")
    rows = [
        {name: vars(value) for name, value in each.figures.items() if name in grid.figures}
        for each in grid.results
    ]
    if why := dashes(rows, grid.figures if intervals else ()):
        said.append(why)
    if not grid.across:
        said.append("Columns have protocols of their own and are not to be compared.")
    if any(column.protocol == AS_PUBLISHED for column in grid.columns):
        said.append("As published: protocols differ from ours, and among themselves.")
    if any(column.synthetic for column in grid.columns):
        said.append("Synthetic: severity of degradation, not opinion.")
    return " ".join(said)


def sources(grid: Grid) -> list[str]:
    """For every result where it is from and by which protocol; what is the same is said once."""
    where: dict[tuple[str, bool, str], list[str]] = {}
    for row in grid.rows:
        for each in row.cells:
            if each is not None:
                note = f" ({each.note})" if each.note else ""
                about = f"{each.said}. {_capital(each.source)}{note}."
                place = data(Column(each.dataset, each.target, each.protocol, each.synthetic))
                if not grid.across:
                    place = f"{place}, {each.protocol}"
                where.setdefault((row_name(row), row.ours, about), []).append(place)
    merged: dict[tuple[str, ...], list[str]] = {}
    for (name, ours, about), places in where.items():  # the models of one run say the same
        merged.setdefault((about, "" if ours else name, *places), []).append(name)
    return [
        f"{_together(names)}. {'; '.join(places)}: {about}"
        for (about, _, *places), names in merged.items()
    ]


def _together(names: Sequence[str]) -> str:
    """The models of one run by their number."""
    return names[0] if len(names) == 1 else f"agiqa, {len(names)} models"


def _capital(text: str) -> str:
    """A publication opens a sentence; a folder stays as it is."""
    return text if "/" in text or text.startswith("MA-") else text[:1].upper() + text[1:]
