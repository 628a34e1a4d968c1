"""`agiqa ceiling`: what the raters' own disagreement leaves to be reached."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import as_json, cache
from agiqa.cli.output import echo, print_json, print_table

PANELS = (5, 10, 15, 20, 30, 50, 100)  # raters, where their number is not known


@click.command("ceiling", cls=Command)
@click.argument("dataset")
@click.option("--target", default="", help="Default: every target with raters' deviations.")
@click.option(
    "--raters",
    multiple=True,
    type=click.FloatRange(min=1),
    help="People who rated each image. Default: as the data set counts them, or else as "
    "assumed, among others. Repeatable.",
)
@cache
@as_json
def command(
    dataset: str, target: str, raters: tuple[float, ...], cache: Path, as_json: bool
) -> None:
    r"""Show the figures that a perfect predictor would reach against DATASET's MOS.

    From the raters' standard deviations, where the data set gives them: reliability 1 − E/V, with V
    the variance of the MOS and E the mean squared error of a mean of that many ratings.

    \b
    agiqa ceiling agiqa-3k
    agiqa ceiling agiqa-3k --target align --raters 21 --raters 15
    """
    from agiqa.core.errors import AgiqaError
    from agiqa.data.datasets.table import read_table
    from agiqa.data.statistics.ceiling import (
        assumed_raters,
        deviations,
        known_raters,
        noise_ceiling,
    )
    from agiqa.views.kit.number import DASH, number

    table = read_table(cache / dataset)
    targets = [known for known in table.targets if known.deviation and target in ("", known.name)]
    if not targets:
        having = ", ".join(known.name for known in table.targets if known.deviation) or "no target"
        raise AgiqaError(
            f"{dataset}: the raters' deviations are known for {having}"
            f"{f', not for {target}' if target else ''}: without them there is no ceiling. Name "
            "their columns in a CSV of your own (agiqa prepare --deviation-column); of the data "
            "sets built in, agiqa-3k and koniq-10k have them"
        )
    guess = assumed_raters(table)
    ceilings: list[dict[str, Any]] = []
    for rated in targets:
        spread = deviations(table, rated)
        assert spread is not None
        mos = table.frame[rated.name].to_numpy(dtype=float)
        own = known_raters(table, rated)
        panels: Sequence[Any] = raters or sorted({*PANELS, *([guess] if guess else [])})
        for count in panels if own is None or raters else [own]:
            ceiling = asdict(noise_ceiling(mos, spread, count))
            assumed = own is None and ceiling["raters"] == guess
            ceilings.append({"target": rated.name, "assumed": assumed, **ceiling})
    if as_json:
        print_json({"dataset": dataset, "ceilings": ceilings})
        return
    figures = ("reliability", "srcc", "krcc", "plcc", "rmse", "mae")
    print_table(
        ["target", "raters", "images", "reliability", "SRCC", "KRCC", "PLCC", "RMSE", "MAE"],
        [
            [
                row["target"],
                f"{row['raters']:.4g}{' (assumed)' * row['assumed']}".replace("nan", DASH),
                f"{row['images']:,}",
                *(number(row[figure]) for figure in figures),
            ]
            for row in ceilings
        ],
        title=f"{dataset}: the most that a perfect predictor would reach (RMSE, MAE: the least)",
    )
    if any(math.isnan(row["reliability"]) for row in ceilings):
        echo(f"{DASH}: fewer than three images with a score and a deviation, or all scores equal.")
