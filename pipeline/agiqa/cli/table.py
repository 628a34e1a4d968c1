"""`agiqa table`: results of many runs side by side, and published ones beside them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import ANY, RUNS, different, out_file
from agiqa.cli.output import echo, print_table

if TYPE_CHECKING:
    from agiqa.views.tables.grids import Grid

FORMATS = ("markdown", "csv", "latex", "html")
FIGURES = ("srcc", "plcc_logistic", "plcc", "krcc", "rmse_raw", "mae", "rmse")


@click.command("table", cls=Command)
@click.argument(
    "folders",
    nargs=-1,
    metavar="[RUN|FOLDER]...",
    type=ANY,
    callback=different,
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="Default: what -o's name ends in (.md, .csv, .tex, .html), else a table for the terminal.",
)
@out_file("The file to write. Default: standard output.")
@click.option(
    "--figure",
    "figures",
    multiple=True,
    type=click.Choice(FIGURES),
    help="What the cells give. Repeatable. Default: srcc and plcc_logistic.",
)
@click.option(
    "--models",
    default="moe",
    show_default=True,
    help="Models of our runs, by name and with commas between them (moe,ridge), or all.",
)
@click.option("--intervals", is_flag=True, help="95 % intervals beside our medians.")
@click.option(
    "--published/--no-published",
    default=True,
    show_default=True,
    help="Published results on the same data sets beside ours, each with its source.",
)
def command(
    folders: tuple[Path, ...],
    form: str | None,
    out: Path | None,
    figures: tuple[str, ...],
    models: str,
    intervals: bool,
    published: bool,
) -> None:
    r"""Set evaluated runs side by side: RUNs, or all runs in FOLDERs (default: runs).

    A row is a method, a column a data set, target and protocol: two protocols never share a
    column. What nobody has measured stays empty. Results on other data sets than the training's
    have a table of their own, of what was trained on against what was tested on.

    \b
    agiqa table
    agiqa table runs/agiqa-3k --models all --intervals
    agiqa table runs/agiqa-3k/grouped runs/spaq/random --figure srcc --figure krcc -o table.tex
    agiqa table --no-published --format csv > results.csv
    """
    from agiqa.core.whole_files import write_whole
    from agiqa.views.tables import find_results, format_of, grids_of, published_results, render

    form = form or (format_of(out) if out is not None else None)
    if form is None and out is not None:
        raise click.UsageError(
            f"-o {out}: expected a name that ends in .md, .csv, .tex or .html, or --format."
        )
    named = [name.strip() for name in models.split(",") if name.strip()]
    if not named:
        raise click.UsageError("--models expects names such as moe,ridge, or all; found none.")
    shown = [  # the fitted error never without the raw one
        figure for name in figures or ("srcc", "plcc_logistic")
        for figure in (("rmse_raw", name) if name == "rmse" else (name,))
    ]  # fmt: skip
    results = find_results(folders or (RUNS,), named)
    from_papers = published_results() if published else []
    grids = grids_of(results.results, from_papers, tuple(dict.fromkeys(shown)))
    for run in results.not_evaluated:
        echo(f"Left out, not evaluated: {run} (agiqa evaluate {run})", err=True)
    for error in results.damaged:
        echo(f"Left out: {error}", err=True)
    if form is None:
        for grid in grids:
            _print(grid, intervals)
    elif out is None:
        echo(render(grids, form, intervals).rstrip("\n"))
    else:
        write_whole(out, render(grids, form, intervals).encode("utf-8"))
        echo(f"table  {out}")
    if results.damaged:
        sys.exit(1)


def _print(grid: "Grid", intervals: bool) -> None:
    """A table for each column of the grid, of the rows that have something in it: nothing wraps."""
    from agiqa.views.tables import wording
    from agiqa.views.tables.grids import FIGURES as HEADINGS

    heads = [
        "trained on" if grid.across else "method",
        *(HEADINGS[figure] for figure in grid.figures),
    ]
    for index, column in enumerate(grid.columns):
        rows = []
        for row in grid.rows:
            cell = row.cells[index]
            if cell is not None:
                texts = [wording.cell(cell, figure, intervals) for figure in grid.figures]
                rows.append([wording.row_name(row), *texts])
        data, protocol = wording.data(column), wording.protocol(column)
        print_table(
            heads, rows, title=f"tested on {data}" if grid.across else f"{data}: {protocol}"
        )
    echo(wording.caption(grid, intervals))
    for source in wording.sources(grid):
        echo(f"  {source}")
