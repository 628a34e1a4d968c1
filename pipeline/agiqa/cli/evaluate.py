"""`agiqa evaluate`: the test sides of a run."""

from pathlib import Path
from typing import Any

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import as_json, cache_or_url, run_argument
from agiqa.cli.output import echo, print_table, show

WITH_INTERVAL = ("srcc", "plcc_logistic", "rmse_raw", "mae")  # the others' stand in metrics.json


@click.command("evaluate", cls=Command)
@run_argument
@cache_or_url
@as_json
def command(run: Path, cache: Path | str, as_json: bool) -> None:
    r"""Score the test side of every split of RUN, once, and write metrics.json.

    SRCC, KRCC, PLCC, RMSE and MAE of raw scores; PLCC and RMSE also after the 4-parameter logistic,
    where a split tests at least 30 images. Median, deviation and 95 % interval over the splits; the
    raters' own noise as the ceiling; below, why something has a dash.
    --json gives the first data set and target; those of others lie in RUN/datasets, RUN/targets.

    \b
    agiqa evaluate runs/demo/grouped
    agiqa evaluate runs/agiqa-3k/grouped --json
    """
    from agiqa.runs.interface import evaluate

    evaluations = evaluate(run, cache=cache)
    if as_json:
        show(evaluations[0].metrics, as_json)
        return
    for evaluation in evaluations:
        _print(evaluation.metrics)


def _print(metrics: dict[str, Any]) -> None:
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
    models, best = in_order(metrics["models"]), metrics.get("ceiling")
    for names in (CORRELATIONS, ERRORS):
        headings = ["model"]
        for name in names:
            headings += [FIGURES[name].heading] + ["95 %"] * (name in WITH_INTERVAL)
        rows = []
        for model in models:
            cells = [label(model)]
            for name in names:
                values = metrics["models"][model][name]
                cells += [with_deviation(values)] + [interval(values)] * (name in WITH_INTERVAL)
            rows.append(cells)
        if best:
            guess = " (assumed)" if best.get("assumed", True) else ""
            cells = [f"ceiling: noise of {best['raters']:.4g} raters{guess}"]
            for name in names:
                cells += [number(ceiling_of(best, name))] + [""] * (name in WITH_INTERVAL)
            rows.append(cells)
        first = names == CORRELATIONS
        print_table(
            headings,
            rows,
            title=title if first else "",
            caption="" if first else caption,
            bold=[models.index("moe")],
        )
    dashed = dashes(metrics["models"].values(), WITH_INTERVAL)
    for line in (dashed, outside_scale(metrics), gate_line(metrics), coverage_line(metrics)):
        if line:
            echo(line)
