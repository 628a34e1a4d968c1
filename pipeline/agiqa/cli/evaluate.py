"""`agiqa evaluate`: the test sides of a run."""

from pathlib import Path
from typing import Any

import click

from agiqa.cli.options import as_json, cache_or_url, show

LABELS = {
    "ridge": "ridge, both",
    "ridge_visual": "ridge, visual only",
    "ridge_semantic": "ridge, semantic only",
    "visual": "{preset}, visual only",
    "semantic": "{preset}, semantic only",
    "moe": "{preset}, mixture of experts",
    "moe_drop_last": "the same, last batch dropped",
}
COLUMNS = {
    "srcc": "SRCC",
    "plcc_logistic": "PLCC",
    "plcc": "PLCC raw",
    "krcc": "KRCC",
    "rmse": "RMSE",
}


@click.command("evaluate")
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@cache_or_url
@as_json
def command(run: Path, cache: Path | str, as_json: bool) -> None:
    r"""Score the test side of every split of RUN, once, and write metrics.json.

    SRCC and KRCC on raw scores; PLCC and RMSE after the 4-parameter logistic, PLCC raw beside it.

    \b
    agiqa evaluate runs/demo/grouped
    agiqa evaluate runs/agiqa-3k/grouped --json
    """
    from agiqa.runs import evaluate_run

    metrics = evaluate_run(run, cache).metrics
    if as_json:
        show(metrics, as_json)
        return
    _print(metrics)


def _print(metrics: dict[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    title = f"{metrics['dataset']}, {metrics['target']}, protocol {metrics['protocol']}"
    if metrics["synthetic"]:
        title += " (synthetic: severity of degradation, not opinion)"
    table = Table(
        title=title,
        box=SIMPLE_HEAD,
        caption=f"median ± sd over {metrics['splits']} splits, test side",
    )
    labels = {
        model: label.format(preset=metrics["preset"])
        for model, label in LABELS.items()
        if model in metrics["models"]
    }
    table.add_column("model", no_wrap=True, min_width=max(map(len, labels.values())))
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for model, label in labels.items():
        values = metrics["models"][model]
        cells = [f"{values[c]['median']:.3f} ± {values[c]['sd']:.3f}" for c in COLUMNS]
        table.add_row(label, *cells, style="bold" if model == "moe" else "")
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(table)
