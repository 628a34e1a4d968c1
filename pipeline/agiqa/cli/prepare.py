"""`agiqa prepare`: from what the user has to an images table and its splits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import ANY, Settings, as_json, cache, plain_name, settings
from agiqa.cli.output import echo, show
from agiqa.core.params import Source
from agiqa.data.datasets.origin import KINDS


@click.command("prepare", cls=Command)
@click.argument("name")
@click.option(
    "--from",
    "path",
    type=ANY,
    help="Folder of the official download, a CSV or TSV, or a folder of images. "
    "Default: sources.NAME.path in the settings, or $AGIQA_DATA/NAME.",
)
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    help="How to read it. Default: NAME itself, csv for a .csv or .tsv, folder for a folder.",
)
@click.option("--image-column", help="csv: column of image files. Default: path.")
@click.option(
    "--score-column", "score_columns", multiple=True, help="csv: column of scores. Repeatable."
)
@click.option("--prompt-column", help="csv: column of the generation prompts.")
@click.option(
    "--group-column",
    help="csv: images to keep on one side of a split; values are names, taken as they are. "
    "Default: the prompt, whatever its white space and case.",
)
@click.option("--generator-column", help="csv: column of the image generators.")
@click.option(
    "--deviation-column",
    "deviation_columns",
    multiple=True,
    help="csv: column of the raters' standard deviations, for agiqa ceiling. Repeatable, one for "
    "each --score-column.",
)
@click.option("--raters-column", help="csv: column of the number of ratings of an image.")
@click.option(
    "--scale", type=float, nargs=2, help="csv: the two ends of the raters' scale, such as 0 100."
)
@click.option(
    "--lower-is-better",
    multiple=True,
    help="csv: score column to turn round within --scale (DMOS); in the table higher is better. "
    "Repeatable.",
)
@click.option("--root", help="csv: folder of the images. Default: that of the CSV.")
@click.option(
    "--skip-bad",
    is_flag=True,
    help="Leave out unreadable images, and images and labels without each other, instead of "
    "stopping.",
)
@click.option(
    "--download",
    is_flag=True,
    help="Fetch the data set first, where the hub has a copy, unless it is there: into --from, or "
    "where it would be looked for. A stopped download goes on.",
)
@click.option(
    "--only-sources",
    is_flag=True,
    help="Only write CACHE/NAME/sources.json, which says what there is to read now, and stop: how "
    "`dvc repro` sees that labels, splits or images have changed.",
)
@cache
@settings
@as_json
def command(
    name: str,
    path: Path | None,
    kind: str | None,
    skip_bad: bool,
    download: bool,
    only_sources: bool,
    cache: Path,
    settings: Settings,
    as_json: bool,
    **columns: Any,
) -> None:
    r"""Read the data set NAME and write CACHE/NAME/images.csv and its splits.

    Every image is decoded and hashed first; nothing is written if one is bad, unless --skip-bad.
    One split file a protocol: grouped (a prompt's images together), random, and where there is one
    MA-AGIQA's (paper) or the data set's own (official). Other people's splits: agiqa splits import,
    or sources.NAME.splits in the settings.

    Of an official data set, labels are held against images, and their number and scores against
    the published ones; `agiqa datasets` lists those that are read.

    \b
    agiqa prepare demo
    agiqa prepare agiqa-3k --from ~/data/agiqa-3k
    agiqa prepare aigciqa2023 --from ~/data/aigciqa2023 --download
    agiqa prepare mine --from labels.csv --image-column file --score-column mos
    agiqa prepare holiday --from ~/pictures
    """
    from agiqa.data.prepare import note_what_is_there, prepare

    plain_name(name, "NAME")
    params = settings.read()
    overrides = {key: value for key, value in columns.items() if value}
    overrides |= {"path": str(path)} if path else {}
    overrides |= {"kind": kind} if kind else {}
    source = replace(params.sources.get(name, Source()), **overrides)
    if only_sources:
        note_what_is_there(name, source, cache=cache, params=params)
        return
    prepared = prepare(
        name, source, cache=cache, params=params, skip_bad=skip_bad, download=download
    )
    for protocol, reason in prepared.absent.items():
        echo(f"No {protocol} split: {reason}", err=True)
    show(prepared.summary(), as_json)
    for note in prepared.notes:
        echo(note, err=True)
    for bad in prepared.table.skipped:
        echo(f"Skipped {bad.path}: {bad.reason}", err=True)
