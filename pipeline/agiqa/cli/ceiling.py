"""`agiqa ceiling`: what the raters' own disagreement leaves to be reached."""

import math
from pathlib import Path

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import as_json, cache
from agiqa.cli.output import echo, print_json, print_table
from agiqa.views.kit.number import DASH, number


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
