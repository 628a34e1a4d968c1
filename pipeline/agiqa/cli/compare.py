"""`agiqa compare`: runs on the same splits, paired."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from agiqa.cli.lines import echo
from agiqa.cli.options import as_json, print_json

HEADINGS = {
    "srcc": "SRCC",
    "plcc_logistic": "PLCC",
    "plcc": "PLCC raw",
    "krcc": "KRCC",
    "rmse": "RMSE",
}


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, metavar="RUN[:MODEL]...")
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
    from agiqa import comparison

    if as_json and markdown:
        raise click.UsageError("--json and --markdown exclude each other.")
    if across_protocols and len(runs) != 2:
        raise click.UsageError(f"--across-protocols takes two runs, found {len(runs)}.")
    contenders = comparison.read_contenders(runs)
    if across_protocols:
        result = comparison.across_protocols(contenders[0], contenders[1])
    else:
        result = comparison.compare(contenders)
    if as_json:
        print_json(result)
        return
    _print(result, markdown, by_generator)


def _print(result: dict[str, Any], markdown: bool, by_generator: bool) -> None:
    title = f"{result['dataset']}, {result['target']}, protocol {result['protocol']}"
    if result["synthetic"]:
        title += " (synthetic: severity of degradation, not opinion)"
    one = result["splits"] == 1
    rows = [
        [_named(each), *(_median(each["figures"][figure], one) for figure in HEADINGS)]
        for each in result["contenders"]
    ]
    headings = ["run", *HEADINGS.values()]
    _table(headings, rows, title if one else f"{title}: median ± sd over splits", markdown)
    if "across" in result:
        _print_across(result, markdown)
        return
    several = len(result["comparisons"]) > 1
    for each in result["comparisons"]:
        rows = [
            [
                heading,
                _signed(values["mean"]),
                _number(values["sd"]),
                f"{values['better']} of {values['splits']}",
                _interval(values["low"], values["high"]),
                _p(values["p"]),
                *([_p(values["p_holm"])] if several else []),
                _interval(values["image_low"], values["image_high"]),
                _p(values["image_p"]),
            ]
            for heading, values in ((h, each["figures"][f]) for f, h in HEADINGS.items())
        ]
        headings = ["figure", "mean difference", "sd", "better in", "95 % over splits", "p",
                    *(["p, Holm"] if several else []), "95 % over images", "p"]  # fmt: skip
        _table(headings, rows, f"{each['name']} against {each['against']}", markdown)
        if by_generator and each["generators"]:
            _print_generators(each, markdown)
    said = (
        "Over splits: corrected resampled t-test (Nadeau and Bengio, 2003). Over images: paired "
        f"bootstrap, {result['drawn']} drawn once for both models and all splits."
    )
    if result["splits"] == 1:
        said += " With one split there is no test over splits."
    echo(said)


def _print_generators(each: dict[str, Any], markdown: bool) -> None:
    rows = [
        [
            generator,
            *(_number(median) for median in values["srcc"]),
            _signed(values["mean"]),
            _number(values["sd"]),
            f"{values['better']} of {values['splits']}",
            _interval(values["low"], values["high"]),
            _p(values["p"]),
        ]
        for generator, values in each["generators"].items()
    ]
    headings = ["generator", each["against"], each["name"], "mean difference", "sd", "better in",
                "95 % over splits", "p"]  # fmt: skip
    _table(headings, rows, "SRCC within each generator", markdown)


def _print_across(result: dict[str, Any], markdown: bool) -> None:
    across = result["across"]
    rows = [
        [
            heading,
            *(_number(value) for value in values["values"]),
            _signed(values["difference"]),
            _interval(values["image_low"], values["image_high"]),
            _p(values["image_p"]),
        ]
        for heading, values in ((h, across["figures"][f]) for f, h in HEADINGS.items())
    ]
    headings = ["figure", across["against"], across["name"], "difference", "95 % over images", "p"]
    title = f"The {across['images']:,} images that both tested, scores averaged over splits"
    _table(headings, rows, title, markdown)
    echo(
        f"Paired by image: the same images, their {result['drawn']} drawn once for both. The "
        "medians above are of different test sides and belong in different columns."
    )


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
    from agiqa.model_labels import label

    if each["name"] == each["model"]:  # the models of a single run
        return label(each["model"])
    run = str(Path(each["name"]))
    return f"{run} (mixture of experts)" if ":" not in run else run


def _median(values: dict[str, float], one: bool) -> str:
    """With the deviation over splits, where there are several."""
    return _number(values["median"]) + ("" if one else f" ± {_number(values['sd'])}")


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "–"


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−") if math.isfinite(value) else "–"


def _interval(low: float, high: float) -> str:
    return f"{_signed(low)} … {_signed(high)}" if math.isfinite(low) else "–"


def _p(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return "< .001" if value < 0.001 else f"{value:.3f}".removeprefix("0")
