"""`agiqa splits export`: our splits for other people."""

from pathlib import Path

import click

from agiqa.cli.lazy import Command
from agiqa.cli.lines import echo
from agiqa.cli.options import cache


@click.command("export", cls=Command)
@click.argument("dataset")
@click.option("--protocol", required=True, help="Which splits: grouped, random, paper ...")
@click.option("--seed", type=int, help="One split alone. Default: all of them.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The CSV. Default: standard output.",
)
@cache
def command(dataset: str, protocol: str, seed: int | None, out: Path | None, cache: Path) -> None:
    r"""Write DATASET's splits as a CSV: name, side, seed, and the sha256 of each file.

    `agiqa splits import` reads it back, and refuses it where a file is another one.

    \b
    agiqa splits export agiqa-3k --protocol grouped -o agiqa-3k-grouped.csv
    agiqa splits export agiqa-3k --protocol paper --seed 20
    """
    from agiqa.core.errors import AgiqaError
    from agiqa.data.datasets.table import read_table, write_whole
    from agiqa.data.splits import read_protocol

    splits = read_protocol(cache / dataset, read_table(cache / dataset), protocol)
    if seed is not None:
        chosen = splits[splits["seed"] == seed]
        if chosen.empty:
            there = ", ".join(map(str, splits["seed"].unique()))
            raise AgiqaError(f"{dataset}, {protocol}: no split of seed {seed}; there are: {there}")
        splits = chosen
    text = splits[["name", "side", "seed", "image_id"]].to_csv(index=False, lineterminator="\n")
    if out is None:
        echo(text, nl=False)
    else:
        write_whole(out, text.encode("utf-8"))
