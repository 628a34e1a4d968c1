"""`agiqa compare`: runs on the same splits, paired.

`agiqa table`: results of many runs side by side, and published ones beside them.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import ANY, RUNS, as_json, different, out_file
from agiqa.cli.output import echo, print_json, print_table
from agiqa.core.model_names import label
from agiqa.data.metric_names import CORRELATIONS, ERRORS, FIGURES
from agiqa.views.kit.number import (
    difference_dashes,
    number,
    over_images,
    over_splits,
    probability,
    with_deviation,
)

if TYPE_CHECKING:
    from agiqa.views.tables.grids import Grid

OVER_SPLITS = ("mean difference", "sd", "better in", "95 % over splits", "p")
OVER_IMAGES = ("95 % over images", "p")
FORMATS = ("markdown", "csv", "latex", "html")  # of `table`
TABLE_FIGURES = ("srcc", "plcc_logistic", "plcc", "krcc", "rmse_raw", "mae", "rmse")


@click.command("compare", cls=Command)
@click.argument("runs", nargs=-1, required=True, metavar="RUN[:MODEL]...", callback=different)
@click.option(
    "--across-protocols",
    is_flag=True,
    help="Two runs of one data set by different protocols, paired by image.",
)
@click.option("--by-generator", is_flag=True, help="SRCC within each generator, too.")
@as_json
def command(
    runs: tuple[str, ...], across_protocols: bool, by_generator: bool, as_json: bool
) -> None:
    r"""Compare evaluated RUNs on the same splits: each against the first one.

    A run's mixture of experts counts, or another of its models (RUN:ridge); one RUN alone has its
    models compared. Over splits: mean difference, deviation, in how many splits it is better, and
    the corrected resampled t-test, which knows that splits overlap. Over images: paired bootstrap.

    \b
    agiqa compare runs/agiqa-3k/grouped runs/agiqa-3k/linear-gate
    agiqa compare runs/agiqa-3k/grouped:ridge runs/agiqa-3k/grouped --by-generator
    agiqa compare runs/agiqa-3k/grouped
    agiqa compare runs/agiqa-3k/grouped runs/agiqa-3k/random --across-protocols
    """
    from agiqa.runs.compare import compare

    result = compare(*runs, across_protocols=across_protocols)
    if as_json:
        print_json(result)
    else:
        _print(result, by_generator)


def _print(result: dict[str, Any], by_generator: bool) -> None:
    title = f"{result['dataset']}, {result['target']}, protocol {result['protocol']}"
    if result["synthetic"]:
        title += " (synthetic: severity of degradation, not opinion)"
    is_single = result["splits"] == 1
    for names in (CORRELATIONS, ERRORS):
        rows = [
            [_named(contender), *(with_deviation(contender["figures"][name], 4) for name in names)]
            for contender in result["contenders"]
        ]
        headings = ["run", *(FIGURES[name].heading for name in names)]
        above = title if is_single else f"{title}: median ± sd over splits"
        print_table(headings, rows, title=above)
    if "across" in result:
        _print_across(result["across"], result["drawn"])
        return
    for comparison in result["comparisons"]:
        _print_differences(comparison, len(result["comparisons"]) > 1)
        if by_generator:
            _print_generators(comparison)
    echo(
        "Over splits: corrected resampled t-test (Nadeau and Bengio, 2003). Over images: paired "
        f"bootstrap, {result['drawn']} drawn once for both models and all splits."
        + " With one split there is no test over splits."
        * is_single
    )
    differences = [comparison["figures"] for comparison in result["comparisons"]]
    if any(values["alike"] for figures in differences for values in figures.values()):
        echo("– over splits: the differences of all splits are equal.")
    if why := difference_dashes(differences):
        echo(why)


def _print_differences(comparison: dict[str, Any], several: bool) -> None:
    """A table of one pair of runs; with several pairs also p after Holm."""
    rows = [
        [
            heading,
            *_mean_difference(values),
            *([probability(values["p_holm"])] if several else []),
            *over_images(values),
        ]
        for heading, values in _by_heading(comparison["figures"])
    ]
    headings = ["figure", *OVER_SPLITS, *(["p, Holm"] if several else []), *OVER_IMAGES]
    pair = f"{comparison['name']} against {comparison['against']}"
    print_table(headings, rows, title=pair)


def _print_generators(comparison: dict[str, Any]) -> None:
    from agiqa.runs.measure import LEAST_IMAGES

    few = f"fewer than {LEAST_IMAGES} test images in every split"
    if not comparison["generators"]:
        echo(f"No SRCC within a generator: each has {few}.")
        return
    rows = [
        [generator, *(number(median, 4) for median in values["srcc"]), *_mean_difference(values)]
        for generator, values in comparison["generators"].items()
    ]
    headings = ["generator", comparison["against"], comparison["name"], *OVER_SPLITS]
    title = f"SRCC within each generator (not shown: those with {few})"
    print_table(headings, rows, title=title)


def _print_across(across: dict[str, Any], drawn: str) -> None:
    rows = [
        [
            heading,
            *(number(value, 4) for value in values["values"]),
            number(values["difference"], 4, True),
            *over_images(values),
        ]
        for heading, values in _by_heading(across["figures"])
    ]
    headings = ["figure", across["against"], across["name"], "difference", *OVER_IMAGES]
    title = f"The {across['images']:,} images that both tested, scores averaged over splits"
    print_table(headings, rows, title=title)
    echo(
        f"Paired by image: the same images, their {drawn} drawn once for both. The "
        "medians above are of different test sides and belong in different columns."
    )
    if why := difference_dashes([across["figures"]]):
        echo(why)


def _mean_difference(values: dict[str, Any]) -> list[str]:
    """Fill the cells below OVER_SPLITS: mean difference, its interval, p."""
    return [number(values["mean"], 4, True), number(values["sd"], 4), *over_splits(values)]


def _named(contender: dict[str, Any]) -> str:
    if contender["name"] == contender["model"]:  # the models of a single run
        return label(contender["model"])
    run = str(Path(contender["name"]))
    return f"{run} (mixture of experts)" if ":" not in run else run


def _by_heading(figures: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(figure.heading, figures[name]) for name, figure in FIGURES.items()]


def _model_names(_ctx: click.Context, _option: click.Parameter, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise click.UsageError("--models expects names such as moe,ridge, or all; found none.")
    return names


@click.command("table", cls=Command)
@click.argument("folders", nargs=-1, metavar="[RUN|FOLDER]...", type=ANY, callback=different)
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
    type=click.Choice(TABLE_FIGURES),
    help="What the cells give. Repeatable. Default: srcc and plcc_logistic.",
)
@click.option(
    "--models",
    default="moe",
    show_default=True,
    callback=_model_names,
    help="Models of our runs, by name and with commas between them (moe,ridge), or all.",
)
@click.option("--intervals", is_flag=True, help="95 % intervals beside our medians.")
@click.option(
    "--published/--no-published",
    default=True,
    show_default=True,
    help="Published results on the same data sets beside ours, each with its source.",
)
def table(
    folders: tuple[Path, ...],
    form: str | None,
    out: Path | None,
    figures: tuple[str, ...],
    models: list[str],
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
    shown = [  # the fitted error never without the raw one
        figure for name in figures or ("srcc", "plcc_logistic")
        for figure in (("rmse_raw", name) if name == "rmse" else (name,))
    ]  # fmt: skip
    results = find_results(folders or (RUNS,), models)
    from_papers = published_results() if published else []
    grids = grids_of(results.results, from_papers, tuple(dict.fromkeys(shown)))
    for run in results.not_evaluated:
        echo(f"Left out, not evaluated: {run} (agiqa evaluate {run})", err=True)
    for error in results.damaged:
        echo(f"Left out: {error}", err=True)
    if form is None:
        for grid in grids:
            _print_grid(grid, intervals)
    elif out is None:
        echo(render(grids, form, intervals).rstrip("\n"))
    else:
        write_whole(out, render(grids, form, intervals).encode("utf-8"))
        echo(f"table  {out}")
    if results.damaged:
        sys.exit(1)


def _print_grid(grid: "Grid", intervals: bool) -> None:
    """A table for each column of the grid, of the rows that have something in it: nothing wraps."""
    from agiqa.views.tables import formats
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
                texts = [formats.cell_text(cell, figure, intervals) for figure in grid.figures]
                rows.append([formats.row_name(row), *texts])
        data, protocol = formats.data_name(column), formats.protocol_name(column)
        print_table(
            heads, rows, title=f"tested on {data}" if grid.across else f"{data}: {protocol}"
        )
    echo(formats.caption(grid, intervals))
    for source in formats.sources(grid):
        echo(f"  {source}")
