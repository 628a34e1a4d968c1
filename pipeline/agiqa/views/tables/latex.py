"""A grid as a LaTeX table with booktabs' rules: a heading of three lines, notes below."""

from collections.abc import Callable, Sequence
from itertools import groupby

from agiqa.views.tables import wording
from agiqa.views.tables.grids import Column, Grid

SIGNS = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "–": "--",
    "…": r"\ldots{}",
    "[": "{[}",  # after \\ it would open an optional argument
}


def latex(grids: Sequence[Grid], intervals: bool) -> str:
    """The tables one after the other; they need the package booktabs."""
    head = "% \\usepackage{booktabs}; wide tables: \\usepackage{graphicx} and \\resizebox\n"
    return head + "\n".join(_table(grid, intervals) for grid in grids)


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(SIGNS.get(sign, sign) for sign in text)


def _table(grid: Grid, intervals: bool) -> str:
    width = len(grid.figures)
    figures = [wording.heading(figure) for _ in grid.columns for figure in grid.figures]
    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{escaped(wording.title(grid))}. {escaped(wording.caption(grid, intervals))}}}",
        rf"\begin{{tabular}}{{l{'r' * len(figures)}}}",
        r"\toprule",
        *_spanning(grid.columns, wording.data, width),
        *([] if grid.across else _spanning(grid.columns, _data_and_protocol, width)),
        _line(["Method", *map(escaped, figures)]),
        r"\midrule",
    ]
    for number, row in enumerate(grid.rows):
        if number and row.ours and not grid.rows[number - 1].ours:
            lines.append(r"\midrule")
        cells = [wording.cell(each, f, intervals) for each in row.cells for f in grid.figures]
        lines.append(_line([escaped(wording.row_name(row)), *map(escaped, cells)]))
    said = [rf"\item {escaped(source)}" for source in wording.sources(grid)]
    lines += [r"\bottomrule", r"\end{tabular}", r"\par\medskip\raggedright\footnotesize"]
    lines += [r"\begin{itemize}", *said, r"\end{itemize}", r"\end{table}", ""]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _data_and_protocol(column: Column) -> tuple[str, str]:
    return wording.data(column), wording.protocol(column)


def _spanning(
    columns: Sequence[Column], by: Callable[[Column], str | tuple[str, str]], width: int
) -> list[str]:
    """A line of headings over several columns each, and the rules below them."""
    cells, rules, place = [""], [], 2
    for name, group in groupby(columns, key=by):
        span = width * len(list(group))
        text = name if isinstance(name, str) else name[1]
        cells.append(rf"\multicolumn{{{span}}}{{c}}{{{escaped(text)}}}")
        rules.append(rf"\cmidrule(lr){{{place}-{place + span - 1}}}")
        place += span
    return [_line(cells), "".join(rules)]
