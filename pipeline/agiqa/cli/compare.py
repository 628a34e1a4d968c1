"""`agiqa compare`: runs on the same splits, paired."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from agiqa.cli.lazy import Command
from agiqa.cli.lines import echo
from agiqa.cli.options import as_json, different, print_json


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
    from agiqa.runs.interface import compare

    if as_json and markdown:
        raise click.UsageError("--json and --markdown exclude each other.")
    result = compare(*runs, across_protocols=across_protocols)
    if as_json:
        print_json(result)
        return
    _print(result, markdown, by_generator)


def _print(result: dict[str, Any], markdown: bool, by_generator: bool) -> None:
    from agiqa.data.metric_names import CORRELATIONS, ERRORS, FIGURES
    from agiqa.views.kit.number import (
        difference_dashes,
        number,
        over_images,
        over_splits,
        probability,
        with_deviation,
    )

    title = f"{result['dataset']}, {result['target']}, protocol {result['protocol']}"
    if result["synthetic"]:
        title += " (synthetic: severity of degradation, not opinion)"
    one = result["splits"] == 1
    for names in (CORRELATIONS, ERRORS):
        rows = [
            [_named(each), *(with_deviation(each["figures"][name], 4) for name in names)]
            for each in result["contenders"]
        ]
        headings = ["run", *(FIGURES[name].heading for name in names)]
        _table(headings, rows, title if one else f"{title}: median ± sd over splits", markdown)
    if "across" in result:
        _print_across(result, markdown)
        return
    several = len(result["comparisons"]) > 1
    for each in result["comparisons"]:
        rows = [
            [
                heading,
                number(values["mean"], 4, True),
                number(values["sd"], 4),
                *over_splits(values),
                *([probability(values["p_holm"])] if several else []),
                *over_images(values),
            ]
            for heading, values in _by_heading(each["figures"])
        ]
        headings = ["figure", "mean difference", "sd", "better in", "95 % over splits", "p",
                    *(["p, Holm"] if several else []), "95 % over images", "p"]  # fmt: skip
        _table(headings, rows, f"{each['name']} against {each['against']}", markdown)
        if by_generator:
            _print_generators(each, markdown)
    said = (
        "Over splits: corrected resampled t-test (Nadeau and Bengio, 2003). Over images: paired "
        f"bootstrap, {result['drawn']} drawn once for both models and all splits."
    )
    if result["splits"] == 1:
        said += " With one split there is no test over splits."
    echo(said)
    differences = [each["figures"] for each in result["comparisons"]]
    if any(values["alike"] for figures in differences for values in figures.values()):
        echo("– over splits: the differences of all splits are equal.")
    if why := difference_dashes(differences):
        echo(why)


def _print_generators(each: dict[str, Any], markdown: bool) -> None:
    from agiqa.runs.compare import LEAST_IMAGES
    from agiqa.views.kit.number import number, over_splits

    few = f"fewer than {LEAST_IMAGES} test images in every split"
    if not each["generators"]:
        echo(f"No SRCC within a generator: each has {few}.")
        return
    rows = [
        [
            generator,
            *(number(median, 4) for median in values["srcc"]),
            number(values["mean"], 4, True),
            number(values["sd"], 4),
            *over_splits(values),
        ]
        for generator, values in each["generators"].items()
    ]
    headings = ["generator", each["against"], each["name"], "mean difference", "sd", "better in",
                "95 % over splits", "p"]  # fmt: skip
    _table(headings, rows, f"SRCC within each generator (not shown: those with {few})", markdown)


def _print_across(result: dict[str, Any], markdown: bool) -> None:
    from agiqa.views.kit.number import difference_dashes, number, over_images

    across = result["across"]
    rows = [
        [
            heading,
            *(number(value, 4) for value in values["values"]),
            number(values["difference"], 4, True),
            *over_images(values),
        ]
        for heading, values in _by_heading(across["figures"])
    ]
    headings = ["figure", across["against"], across["name"], "difference", "95 % over images", "p"]
    title = f"The {across['images']:,} images that both tested, scores averaged over splits"
    _table(headings, rows, title, markdown)
    echo(
        f"Paired by image: the same images, their {result['drawn']} drawn once for both. The "
        "medians above are of different test sides and belong in different columns."
    )
    if why := difference_dashes([across["figures"]]):
        echo(why)


def _table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], title: str, markdown: bool
) -> None:
    from agiqa.cli.tables import print_table

    if not markdown:
        print_table(headings, rows, title=title)
        return
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    text = "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )
    echo(f"{title}\n\n{text}\n")


def _named(each: dict[str, Any]) -> str:
    from agiqa.core.model_names import label

    if each["name"] == each["model"]:  # the models of a single run
        return label(each["model"])
    run = str(Path(each["name"]))
    return f"{run} (mixture of experts)" if ":" not in run else run


def _by_heading(figures: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    from agiqa.data.metric_names import FIGURES

    return [(figure.heading, figures[name]) for name, figure in FIGURES.items()]
