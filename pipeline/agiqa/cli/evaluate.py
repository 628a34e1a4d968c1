"""`agiqa evaluate`: the test sides of a run, or of a data set under a published scorer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import OUT_FOLDER, as_json, cache_or_url, remote_code, replace_run
from agiqa.cli.output import echo, print_table, show
from agiqa.core.model_names import in_order, label
from agiqa.data.metric_names import CORRELATIONS, ERRORS, FIGURES
from agiqa.views.kit.number import (
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
    "-o", "--out", type=OUT_FOLDER, help="With --scorer: default runs/DATASET/SCORER/PROTOCOL."
)
@replace_run
@cache_or_url
@remote_code
@as_json
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

        options = {"--target": target, "--protocol": protocol, "-o": out, "--replace": replace}
        if unfit := [name for name, value in options.items() if value]:
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
        show(evaluations[0].metrics, as_json)
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
