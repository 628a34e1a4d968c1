"""Grids as one CSV for programs: a line for each result, what is not known left empty.

Columns: method, ours, trained_on, dataset, target, protocol, synthetic, splits; then for each
figure its value (ours: the median over splits), `_sd` over splits, `_low` and `_high` (95 %
interval), and `_from` and `_to` where publications give a range; then the protocol in words, source
and note, which also says why a figure is not defined. Names that a spreadsheet would take for
formulas begin with an apostrophe (spreadsheets.py).
"""

import csv
import io
from collections.abc import Sequence

from agiqa.core.spreadsheets import safe_cell
from agiqa.data.metric_names import dashes
from agiqa.views.tables.grids import Grid, Row
from agiqa.views.tables.results import Result, Value

ABOUT = ("method", "ours", "trained_on", "dataset", "target", "protocol", "synthetic", "splits")
PARTS = ("", "_sd", "_low", "_high", "_from", "_to")


def tidy_csv(grids: Sequence[Grid], intervals: bool) -> str:
    """One table of all grids. Intervals stand in columns of their own, asked for or not."""
    figures = list(dict.fromkeys(figure for grid in grids for figure in grid.figures))
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    columns = [f"{figure}{part}" for figure in figures for part in PARTS]
    lines.writerow([*ABOUT, *columns, "said", "source", "note"])
    for grid in grids:
        for row in grid.rows:
            for each in row.cells:
                if each is not None:
                    lines.writerow(map(safe_cell, _line(row, each, figures)))
    return out.getvalue()


def _line(row: Row, each: Result, figures: Sequence[str]) -> list[str]:
    trained = "+".join(row.trained_on)
    cells = [row.method, _truth(each.ours), trained, each.dataset, each.target, each.protocol]
    cells += [_truth(each.synthetic), "" if each.splits is None else str(each.splits)]
    for figure in figures:
        cells += _value(each.figures.get(figure, Value()))
    shown = {name: vars(value) for name, value in each.figures.items() if name in figures}
    note = " ".join(filter(None, (each.note, dashes([shown], figures))))
    return [*cells, each.said, each.source, note]


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _value(value: Value) -> list[str]:
    """The parts of a figure; a published one with its own digits."""
    if value.ends:
        return ["", "", "", "", *value.printed]
    if value.printed:
        return [*value.printed, "", "", "", "", ""]
    low, high = value.interval or (None, None)
    return [
        *("" if each is None else f"{each:.6g}" for each in (value.median, value.sd, low, high)),
        "",
        "",
    ]
