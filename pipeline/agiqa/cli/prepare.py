"""`agiqa prepare`: from what the user has to an images table and its splits."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agiqa.cli.lazy import Command
from agiqa.cli.lines import echo
from agiqa.cli.options import as_json, cache, plain_name, read_settings, settings, show
from agiqa.cli.sources import KINDS, OFFICIAL, find_source
from agiqa.core.errors import AgiqaError
from agiqa.core.params import Params, Source

if TYPE_CHECKING:
    from agiqa.data.datasets.table import ImagesTable, Target


@click.command("prepare", cls=Command)
@click.argument("name")
@click.option(
    "--from",
    "path",
    type=click.Path(path_type=Path),
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
    params_file: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
    **columns: Any,
) -> None:
    r"""Read the data set NAME and write CACHE/NAME/images.csv and its splits.

    Every image is decoded and hashed first; nothing is written if one is bad, unless --skip-bad.
    One split file a protocol: grouped (a prompt's images together), random, the paper's, and
    official where the data set names its own sets. Other people's splits: agiqa splits import, or
    sources.NAME.splits in the settings.

    Of an official data set, labels are held against images, and their number and scores against
    the published ones; `agiqa datasets` lists those that are read.

    \b
    agiqa prepare demo
    agiqa prepare agiqa-3k --from ~/data/agiqa-3k
    agiqa prepare aigciqa2023 --from ~/data/aigciqa2023 --download
    agiqa prepare mine --from labels.csv --image-column file --score-column mos
    agiqa prepare holiday --from ~/pictures
    """
    from agiqa.data.datasets.origin import Reading, origin_of
    from agiqa.data.datasets.table import write_table
    from agiqa.data.splits import make_all_splits, shared, small_test_sides, write_all_splits

    plain_name(name, "NAME")
    _require_free(name, cache)
    params = read_settings(params_file, overrides)
    if only_sources:
        _note_sources(name, cache / name, path, kind, columns, params)
        return
    source = find_source(name, path, kind, columns, params)
    folder = cache / name
    if download:
        _download(name, source)
    reading = Reading(origin_of(source), folder)
    table = _prepare(name, source, folder, params, skip_bad or params.prepare.skip_bad)
    prepared = make_all_splits(table, params.splits, source.splits)
    write_table(table, folder, reading.noted)
    reading.done(table)
    found = write_all_splits(prepared, table, folder)
    for protocol, reason in prepared.absent.items():
        echo(f"No {protocol} split: {reason}", err=True)
    result: dict[str, Any] = {
        "table": str(folder / "images.csv"),
        "images": len(table.frame),
        "skipped": len(table.skipped),
        "targets": ", ".join(_said(table, t) for t in table.targets) or "none",
    }
    for protocol in dict.fromkeys(leak.protocol for leak in found):
        mine = [leak for leak in found if leak.protocol == protocol]
        sizes = f"{len(mine)}x {mine[0].train}/{mine[0].val}/{mine[0].test}"
        result[f"split_{protocol}"] = f"{sizes}; {shared(mine, table.frame)}"
    show(result, as_json)
    for target in table.targets:
        if target.low == target.high:
            echo(f"{name}: every {target.name} is {target.low:g}: nothing to learn.", err=True)
    if few := small_test_sides(prepared, table):
        echo(f"{few}.", err=True)
    for bad in table.skipped:
        echo(f"Skipped {bad.path}: {bad.reason}", err=True)


def _require_free(name: str, cache: Path) -> None:
    """Refuse a name that is another's but for case: on many disks the two are one folder."""
    for other in cache.iterdir() if cache.is_dir() else ():
        if other.name != name and other.name.casefold() == name.casefold():
            raise AgiqaError(
                f"{other} is a data set already, whose name differs from '{name}' in case alone: "
                "give one of them another name"
            )


def _note_sources(
    name: str, folder: Path, path: Path | None, kind: str | None, columns: dict[str, Any],
    params: Params,
) -> None:  # fmt: skip
    """Write what there is to read; where that is not on this machine, an earlier note stays."""
    from agiqa.data.datasets.origin import SOURCES, note_sources, origin_of

    try:
        source = find_source(name, path, kind, columns, params)
        note_sources(origin_of(source), folder, params.prepare.workers)
    except AgiqaError as error:
        if not (folder / SOURCES).is_file():
            raise
        echo(f"{name}: what it is made from is not here, its table stays: {error}", err=True)


def _said(table: "ImagesTable", target: "Target") -> str:
    """The target with its range, and the number of its scores where images have none."""
    scored = int(table.frame[target.name].notna().sum())
    count = "" if scored == len(table.frame) else f" ({scored} of {len(table.frame)} images)"
    return f"{target.name} {target.low:g}…{target.high:g}{count}"


def _download(name: str, source: Source) -> None:
    """Fetch an official data set into the source's folder, unless it is there."""
    from agiqa.data.datasets import OFFICIAL as ADAPTERS
    from agiqa.data.datasets.download import download

    if source.kind not in OFFICIAL:
        raise click.UsageError(
            f"--download is for {', '.join(OFFICIAL)}; '{name}' is read as {source.kind}."
        )
    adapter, folder = ADAPTERS[source.kind], Path(source.path).expanduser()
    try:
        adapter.find(folder)
    except AgiqaError:
        download(adapter.FACTS, folder)


def _prepare(name: str, source: Source, folder: Path, params: Params, skip_bad: bool) -> Any:
    from agiqa.data.datasets import OFFICIAL as ADAPTERS
    from agiqa.data.datasets import OWN

    path, workers = Path(source.path).expanduser(), params.prepare.workers
    if source.kind in OFFICIAL:
        table = ADAPTERS[source.kind].prepare(path, skip_bad=skip_bad, workers=workers)
        return dataclasses.replace(table, name=name)
    make = OWN[source.kind]
    if source.kind == "demo":
        return make(folder, params.prepare.seed, workers=workers)
    if source.kind == "folder":
        return make(path, name, skip_bad=skip_bad, workers=workers)
    if not source.score_columns:
        raise AgiqaError("A CSV needs --score-column (repeatable) with the columns of its scores.")
    return make(
        path,
        source.image_column,
        list(source.score_columns),
        prompt_column=source.prompt_column or None,
        group_column=source.group_column or None,
        generator_column=source.generator_column or None,
        deviation_columns=source.deviation_columns,
        raters_column=source.raters_column or None,
        root=Path(source.root) if source.root else None,
        name=name,
        skip_bad=skip_bad,
        workers=workers,
    )
