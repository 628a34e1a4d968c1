"""`agiqa cross`: train on each, test on each."""

from pathlib import Path
from typing import Any

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import ANY, as_json, cache_or_url, different, runs_argument
from agiqa.cli.output import echo, print_json, print_table
from agiqa.core.errors import AgiqaError
from agiqa.core.model_names import label
from agiqa.data.metric_names import FIGURES
from agiqa.views.kit.number import dashes, outside_scale, with_deviation


@click.command("cross", cls=Command)
@runs_argument(type=ANY)
@click.option(
    "--on", multiple=True, callback=different, metavar="DATASET", help="Test on this data set, too."
)
@click.option("--model", default="moe", help="Which of the runs' models.  [default: moe]")
@cache_or_url
@as_json
def command(
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
    from agiqa.runs.cross import cross

    tested = cross(runs, on, cache)
    for folder, metrics in tested:
        for result in metrics.values():
            if model not in result["models"]:
                models = ", ".join(result["models"])
                raise AgiqaError(f"{folder} has no model '{model}'; it has {models}.")
    if not as_json:
        _print(tested, model)
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


def _print(tested: list[tuple[Path, dict[str, dict[str, Any]]]], model: str) -> None:
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
