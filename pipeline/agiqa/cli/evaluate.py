"""`agiqa evaluate`: the test sides of a run, or of a data set under a published scorer.

`agiqa cross`: train on each, test on each. `agiqa ceiling`: what the raters' own disagreement
leaves to be reached.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from agiqa.cli import options
from agiqa.cli.lazy import Command
from agiqa.cli.output import echo, print_json, print_table
from agiqa.core.errors import AgiqaError
from agiqa.core.model_names import in_order, label
from agiqa.data.metric_names import CORRELATIONS, ERRORS, FIGURES
from agiqa.views.kit.number import (
    DASH,
    ceiling_of,
    coverage_line,
    dashes,
    gate_line,
    interval,
    number,
    outside_scale,
    with_deviation,
)

WITH_INTERVAL = ("srcc", "plcc_logistic", "rmse_raw", "mae")  # the others' stand in metrics.json


@click.command("evaluate", cls=Command)
@click.argument("run", metavar="RUN|DATASET")
@click.option(
    "--scorer",
    metavar="NAME|FILE",
    help="A published scorer (agiqa score --help lists them) on DATASET, instead of a run.",
)
@click.option(
    "--target", metavar="NAME", default="", help="With --scorer: what to measure against."
)
@click.option(
    "--protocol", metavar="NAME", help="With --scorer: whose test sides.  [default: auto]"
)
@click.option(
    "-o",
    "--out",
    type=options.OUT_FOLDER,
    help="With --scorer: default runs/DATASET/SCORER/PROTOCOL.",
)
@options.replace_run
@options.cache_or_url
@options.remote_code
@options.as_json
def command(
    run: str,
    scorer: str | None,
    target: str,
    protocol: str | None,
    out: Path | None,
    replace: bool,
    cache: Path | str,
    remote_code: str,
    as_json: bool,
) -> None:
    r"""Score the test side of every split of RUN, once, and write metrics.json.

    SRCC, KRCC, PLCC, RMSE and MAE of raw scores; PLCC and RMSE also after the 4-parameter logistic,
    where a split tests at least 30 images. Median, deviation and 95 % interval over the splits; the
    raters' own noise as the ceiling; below, why something has a dash.
    --json gives the first data set and target; those of others lie in RUN/datasets, RUN/targets.

    With --scorer, a published scorer, to which nothing is fitted, is measured on the same test
    sides of DATASET; `agiqa table` and `compare` set its results beside runs, marked zero-shot.

    \b
    agiqa evaluate runs/demo/grouped
    agiqa evaluate runs/agiqa-3k/grouped --json
    agiqa evaluate agiqa-3k --scorer vqascore --target alignment
    """
    if scorer is None:
        from agiqa.runs.evaluate import evaluate

        of_scorers = {"--target": target, "--protocol": protocol, "-o": out, "--replace": replace}
        if unfit := [name for name, value in of_scorers.items() if value]:
            raise click.UsageError(f"{unfit[0]} goes with --scorer: a run has its own.")
        evaluations = evaluate(run, cache=cache)
    else:
        from agiqa.runs.lmm_scorer import evaluate_scorer

        if not isinstance(cache, Path):
            raise click.UsageError("--scorer reads the images, so --cache is a folder here.")
        evaluations = [
            evaluate_scorer(
                scorer, run, target=target, protocol=protocol or "auto", out=out,
                replace=replace, cache=cache, remote_code=remote_code,
            )
        ]  # fmt: skip
    if as_json:
        print_json(evaluations[0].metrics)
        return
    for evaluation in evaluations:
        _print(evaluation.metrics)


def _print(metrics: dict[str, Any]) -> None:
    title = (
        f"{metrics['dataset']}, {metrics['target']}, protocol {metrics['protocol']}, "
        f"preset {metrics['preset']}"
    )
    if metrics["synthetic"]:
        title += " (synthetic: severity of degradation, not opinion)"
    drawn = metrics["intervals"]
    caption = f"test side; 95 %: {drawn['drawn']} drawn again, {drawn['units']} a test side"
    if metrics["splits"] > 1:
        caption = f"median ± sd over {metrics['splits']} splits, {caption}, of the median"
    else:
        caption += "; one split has no deviation"
    models = in_order(metrics["models"])
    for names in (CORRELATIONS, ERRORS):
        headings = ["model"]
        for name in names:
            headings += [FIGURES[name].heading] + ["95 %"] * (name in WITH_INTERVAL)
        first = names == CORRELATIONS
        print_table(
            headings,
            _rows(metrics, models, names),
            title=title if first else "",
            caption="" if first else caption,
            bold=[models.index("moe")] if "moe" in models else [],
        )
    dashed = dashes(metrics["models"].values(), WITH_INTERVAL)
    for line in (dashed, outside_scale(metrics), gate_line(metrics), coverage_line(metrics)):
        if line:
            echo(line)


def _rows(metrics: dict[str, Any], models: Sequence[str], names: Sequence[str]) -> list[list[str]]:
    """A row of cells for each model, and one for the ceiling where raters' noise is known."""
    rows = []
    for model in models:
        cells = [label(model)]
        for name in names:
            values = metrics["models"][model][name]
            cells += [with_deviation(values)] + [interval(values)] * (name in WITH_INTERVAL)
        rows.append(cells)
    if best := metrics.get("ceiling"):
        guess = " (assumed)" if best.get("assumed", True) else ""
        cells = [f"ceiling: noise of {best['raters']:.4g} raters{guess}"]
        for name in names:
            cells += [number(ceiling_of(best, name))] + [""] * (name in WITH_INTERVAL)
        rows.append(cells)
    return rows


@click.command("cross", cls=Command)
@options.runs_argument(type=options.ANY)
@click.option(
    "--on",
    multiple=True,
    callback=options.different,
    metavar="DATASET",
    help="Test on this data set, too.",
)
@click.option("--model", default="moe", help="Which of the runs' models.  [default: moe]")
@options.cache_or_url
@options.as_json
def cross(
    runs: tuple[Path, ...], on: tuple[str, ...], model: str, cache: Path | str, as_json: bool
) -> None:
    r"""Test every RUN on the test sides of every RUN's data set: one matrix.

    Scores stay on the scale of the training; PLCC fitted and RMSE fitted are after the 4-parameter
    logistic on each test set, where a split tests at least 30 images. RMSE raw and MAE hold that
    scale against the tested data's own. Results are kept in RUN/cross/DATASET. All data sets need
    features made in the same way (agiqa extract).

    \b
    agiqa cross runs/agiqa-3k/grouped runs/aigciqa2023/grouped
    agiqa cross runs/agiqa-3k/random --on koniq-10k --on spaq
    agiqa cross runs/agiqa-3k+aigciqa2023/grouped runs/agiqa-3k/grouped
    """
    from agiqa.runs import cross as crossing

    tested = crossing.cross(runs, on, cache)
    for folder, metrics in tested:
        for result in metrics.values():
            if model not in result["models"]:
                models = ", ".join(result["models"])
                raise AgiqaError(f"{folder} has no model '{model}'; it has {models}.")
    if not as_json:
        _print_matrix(tested, model)
        return
    about = ("trained_on", "target", "protocol", "splits")
    rows = [
        {
            "run": folder,
            "tested_on": {
                name: {key: result[key] for key in about}
                | {figure: result["models"][model][figure] for figure in FIGURES}
                for name, result in metrics.items()
            },
        }
        for folder, metrics in tested
    ]
    print_json({"model": model, "runs": rows})


def _print_matrix(tested: list[tuple[Path, dict[str, dict[str, Any]]]], model: str) -> None:
    columns, last = list(tested[0][1]), list(FIGURES)[-1]
    for figure, description in FIGURES.items():
        rows = []
        for folder, metrics in tested:
            cells = [f"{folder} ({' + '.join(next(iter(metrics.values()))['trained_on'])})"]
            for name in columns:
                values = metrics[name]["models"][model][figure]
                mark = "" if metrics[name]["protocol"] == "cross" else " (own)"
                cells.append(with_deviation(values) + mark)
            rows.append(cells)
        print_table(
            [f"{description.heading}: trained on", *(f"tested on {name}" for name in columns)],
            rows,
            title=label(model) if figure == "srcc" else "",
            caption="median ± sd over splits, test sides" if figure == last else "",
        )
    for folder, metrics in tested:
        for name, result in metrics.items():
            why = dashes([result["models"][model]])
            for line in filter(None, (why, outside_scale(result) if model == "moe" else "")):
                echo(f"{folder} on {name}: {line}")


@click.command("ceiling", cls=Command)
@click.argument("dataset")
@click.option("--target", default="", help="Default: every target with raters' deviations.")
@click.option(
    "--raters",
    multiple=True,
    type=click.FloatRange(min=1),
    help="People who rated each image. Default: as the data set or its authors say, or else "
    "several. Repeatable.",
)
@options.cache
@options.as_json
def ceiling(
    dataset: str, target: str, raters: tuple[float, ...], cache: Path, as_json: bool
) -> None:
    r"""Show the figures that a perfect predictor would reach against DATASET's MOS.

    From the raters' standard deviations, where the data set gives them: reliability 1 − E/V, with V
    the variance of the MOS and E the mean squared error of a mean of that many ratings.

    \b
    agiqa ceiling agiqa-3k
    agiqa ceiling agiqa-3k --target align --raters 21 --raters 15
    """
    from agiqa.data.datasets.table import read_table
    from agiqa.data.statistics.ceiling import ceilings_of

    ceilings = ceilings_of(read_table(cache / dataset), target, raters)
    if as_json:
        print_json({"dataset": dataset, "ceilings": ceilings})
        return
    figures = ("reliability", "srcc", "krcc", "plcc", "rmse", "mae")
    print_table(
        ["target", "raters", "images", "reliability", "SRCC", "KRCC", "PLCC", "RMSE", "MAE"],
        [
            [
                row["target"],
                f"{row['raters']:.4g}".replace("nan", DASH),
                f"{row['images']:,}",
                *(number(row[figure]) for figure in figures),
            ]
            for row in ceilings
        ],
        title=f"{dataset}: the most that a perfect predictor would reach (RMSE, MAE: the least)",
    )
    if any(math.isnan(row["reliability"]) for row in ceilings):
        echo(f"{DASH}: fewer than three images with a score and a deviation, or all scores equal.")
