"""`agiqa evaluate`: the test sides of a run."""

from pathlib import Path
from typing import Any

import click

from agiqa.cli.options import as_json, cache_or_url, show

COLUMNS = {
    "srcc": "SRCC",
    "plcc_logistic": "PLCC",
    "plcc": "PLCC raw",
    "krcc": "KRCC",
    "rmse": "RMSE",
}
WITH_INTERVAL = ("srcc", "plcc_logistic")  # the others' stand in metrics.json


@click.command("evaluate")
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@cache_or_url
@as_json
def command(run: Path, cache: Path | str, as_json: bool) -> None:
    r"""Score the test side of every split of RUN, once, and write metrics.json.

    SRCC and KRCC on raw scores; PLCC and RMSE after the 4-parameter logistic, PLCC raw beside it.
    Median, deviation and 95 % interval over the splits; the raters' own noise as the ceiling.
    --json gives the first data set and target; those of others lie in RUN/datasets, RUN/targets.

    \b
    agiqa evaluate runs/demo/grouped
    agiqa evaluate runs/agiqa-3k/grouped --json
    """
    from agiqa.runs import evaluate_run

    evaluations = evaluate_run(run, cache)
    if as_json:
        show(evaluations[0].metrics, as_json)
        return
    for each in evaluations:
        _print(each.metrics)


def _print(metrics: dict[str, Any]) -> None:
    from agiqa.cli.tables import print_table
    from agiqa.model_labels import in_order, label

    title = (
        f"{metrics['dataset']}, {metrics['target']}, protocol {metrics['protocol']}, "
        f"preset {metrics['preset']}"
    )
    if metrics["synthetic"]:
        title += " (synthetic: severity of degradation, not opinion)"
    headings = ["model"]
    for figure, heading in COLUMNS.items():
        headings += [heading, "95 %"] if figure in WITH_INTERVAL else [heading]
    models = in_order(metrics["models"])
    rows = []
    for model in models:
        cells = [label(model)]
        for figure in COLUMNS:
            values = metrics["models"][model][figure]
            sd = f" ± {values['sd']:.3f}" if metrics["splits"] > 1 else ""
            cells.append(f"{values['median']:.3f}{sd}")
            if figure in WITH_INTERVAL:
                cells.append(f"{values['low']:.3f}…{values['high']:.3f}")
        rows.append(cells)
    drawn = metrics["intervals"]["drawn"]
    caption = f"test side; 95 %: {drawn} drawn again"
    if metrics["splits"] > 1:
        caption = f"median ± sd over {metrics['splits']} splits, {caption}, of the median"
    if best := metrics.get("ceiling"):
        reached = {**best, "plcc_logistic": best["plcc"]}
        guess = " (assumed)" if best.get("assumed", True) else ""
        cells = [f"ceiling: noise of {best['raters']:.4g} raters{guess}"]
        for figure in COLUMNS:
            cells += [f"{reached[figure]:.3f}"] + [""] * (figure in WITH_INTERVAL)
        rows.append(cells)
    bold = [models.index("moe")]
    print_table(headings, rows, title=title, caption=caption, bold=bold)
