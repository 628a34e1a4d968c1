"""`agiqa compare`: runs on the same splits, paired."""

from pathlib import Path
from typing import Any

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import as_json, different
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

OVER_SPLITS = ("mean difference", "sd", "better in", "95 % over splits", "p")
OVER_IMAGES = ("95 % over images", "p")


@click.command("compare", cls=Command)
@click.argument("runs", nargs=-1, required=True, metavar="RUN[:MODEL]...", callback=different)
@click.option(
    "--across-protocols",
    is_flag=True,
    help="Two runs of one data set by different protocols, paired by image.",
)
@click.option("--by-generator", is_flag=True, help="SRCC within each generator, too.")
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown.")
@as_json
def command(
    runs: tuple[str, ...],
    across_protocols: bool,
    by_generator: bool,
    markdown: bool,
    as_json: bool,
) -> None:
    r"""Compare evaluated RUNs on the same splits: each against the first one.

    A run's mixture of experts counts, or another of its models (RUN:ridge); one RUN alone has its
    models compared. Over splits: mean difference, deviation, in how many splits it is better, and
    the corrected resampled t-test, which knows that splits overlap. Over images: paired bootstrap.

    \b
    agiqa compare runs/agiqa-3k/grouped runs/agiqa-3k/linear-gate
    agiqa compare runs/agiqa-3k/grouped:ridge runs/agiqa-3k/grouped --by-generator
    agiqa compare runs/agiqa-3k/grouped --markdown
    agiqa compare runs/agiqa-3k/grouped runs/agiqa-3k/random --across-protocols
    """
    from agiqa.runs.compare import compare

    if as_json and markdown:
        raise click.UsageError("--json and --markdown exclude each other.")
    result = compare(*runs, across_protocols=across_protocols)
    if as_json:
        print_json(result)
    else:
        _print(result, markdown, by_generator)


def _print(result: dict[str, Any], markdown: bool, by_generator: bool) -> None:
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
        print_table(headings, rows, title=above, markdown=markdown)
    if "across" in result:
        _print_across(result["across"], result["drawn"], markdown)
        return
    for comparison in result["comparisons"]:
        _print_differences(comparison, len(result["comparisons"]) > 1, markdown)
        if by_generator:
            _print_generators(comparison, markdown)
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


def _print_differences(comparison: dict[str, Any], several: bool, markdown: bool) -> None:
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
    print_table(headings, rows, title=pair, markdown=markdown)


def _print_generators(comparison: dict[str, Any], markdown: bool) -> None:
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
    print_table(headings, rows, title=title, markdown=markdown)


def _print_across(across: dict[str, Any], drawn: str, markdown: bool) -> None:
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
    print_table(headings, rows, title=title, markdown=markdown)
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
