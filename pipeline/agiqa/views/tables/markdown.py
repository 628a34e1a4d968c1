"""A grid as a Markdown table; GitHub's kind, with three lines in a heading."""

import re
from collections.abc import Sequence

from agiqa.views.tables import wording
from agiqa.views.tables.grids import Grid


def markdown(grids: Sequence[Grid], intervals: bool) -> str:
    """The tables one after the other, each with its title, caption and sources."""
    return "\n".join(_table(grid, intervals) for grid in grids)


def _table(grid: Grid, intervals: bool) -> str:
    heads = ["Method"]
    for column in grid.columns:
        above = [_escaped(wording.data(column)), _escaped(wording.protocol(column))]
        heads += [
            "<br>".join(filter(None, [*above, wording.heading(figure)])) for figure in grid.figures
        ]
    lines = [_line(heads), _line(["---", *["---:"] * (len(heads) - 1)])]
    for row in grid.rows:
        cells = [wording.cell(each, f, intervals) for each in row.cells for f in grid.figures]
        lines.append(_line([_escaped(wording.row_name(row)), *cells]))
    said = [f"- {_escaped(source)}" for source in wording.sources(grid)]
    parts = [f"### {wording.title(grid)}", "", *lines, "", wording.caption(grid, intervals)]
    return "\n".join([*parts, "", "Protocols and sources:", "", *said, ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escaped(text: str) -> str:
    """Names as they are, whatever signs of Markdown's they hold."""
    return re.sub(r"([\\|*_`<>])", r"\\\1", text)
