"""`agiqa prepare`: from what the user has to an images table and its splits."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import click

from agiqa.cli.options import as_json, cache, read_settings, settings, show
from agiqa.errors import AgiqaError
from agiqa.params import Params, Source

KINDS = ("agiqa-3k", "csv", "folder", "demo")


@click.command("prepare")
@click.argument("name")
@click.option(
    "--from",
    "path",
    type=click.Path(path_type=Path),
    help="Folder of the official download, a CSV, or a folder of images. "
    "Default: sources.NAME.path in the settings, or $AGIQA_DATA/NAME.",
)
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    help="How to read it. Default: NAME itself, csv for a .csv, folder for another folder.",
)
@click.option("--image-column", help="csv: column of image files. Default: path.")
@click.option(
    "--score-column", "score_columns", multiple=True, help="csv: column of scores. Repeatable."
)
@click.option("--prompt-column", help="csv: column of the generation prompts.")
@click.option(
    "--group-column", help="csv: images to keep on one side of a split. Default: the prompt."
)
@click.option("--generator-column", help="csv: column of the image generators.")
@click.option("--root", help="csv: folder of the images. Default: that of the CSV.")
@click.option("--skip-bad", is_flag=True, help="Leave unreadable images out instead of stopping.")
@cache
@settings
@as_json
def command(
    name: str,
    path: Path | None,
    kind: str | None,
    skip_bad: bool,
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

    \b
    agiqa prepare demo
    agiqa prepare agiqa-3k --from ~/data/agiqa-3k
    agiqa prepare mine --from labels.csv --image-column file --score-column mos
    agiqa prepare holiday --from ~/pictures
    """
    from agiqa.datasets.table import write_table
    from agiqa.splits import make_all_splits, write_all_splits

    if Path(name).name != name or name in (".", ".."):
        raise click.BadParameter(f"expected a plain name, found '{name}'.", param_hint="NAME")
    params = read_settings(params_file, overrides)
    source = _source(name, path, kind, columns, params)
    folder = cache / name
    table = _prepare(name, source, folder, params, skip_bad or params.prepare.skip_bad)
    prepared = make_all_splits(table, params.splits, source.splits)
    write_table(table, folder)
    found = write_all_splits(prepared, table, folder)
    for protocol, reason in prepared.absent.items():
        click.echo(f"No {protocol} split: {reason}", err=True)
    result: dict[str, Any] = {
        "table": str(folder / "images.csv"),
        "images": len(table.frame),
        "skipped": len(table.skipped),
        "targets": ", ".join(f"{t.name} {t.low:g}…{t.high:g}" for t in table.targets) or "none",
    }
    for protocol in dict.fromkeys(leak.protocol for leak in found):
        mine = [leak for leak in found if leak.protocol == protocol]
        test = sum(leak.test for leak in mine)
        shared = 100 * sum(leak.same_group for leak in mine) / test
        same = sum(leak.same_file for leak in mine)
        result[f"split_{protocol}"] = (
            f"{len(mine)}x {mine[0].train}/{mine[0].val}/{mine[0].test}; {shared:.0f} % of test "
            f"images share a prompt with training, {same} a file"
        )
    show(result, as_json)
    for bad in table.skipped:
        click.echo(f"Skipped {bad.path}: {bad.reason}", err=True)


def _source(
    name: str, path: Path | None, kind: str | None, columns: dict[str, Any], params: Params
) -> Source:
    """The source from the settings, with the command line's options on top."""
    given: dict[str, Any] = {key: value for key, value in columns.items() if value}
    source = dataclasses.replace(params.sources.get(name, Source()), **given)
    where = str(path) if path else source.path
    chosen = kind or source.kind or (name if name in KINDS else "")
    if not chosen and where:
        chosen = "csv" if where.lower().endswith(".csv") else "folder"
    if not chosen:
        raise AgiqaError(
            f"Unknown data set '{name}': give --from with a CSV or a folder, or add it to "
            f"'sources' in params.yaml. Built in: {', '.join(KINDS)}."
        )
    if not where and chosen != "demo":
        shelf = os.environ.get("AGIQA_DATA")
        if not shelf:
            raise AgiqaError(
                f"Where is '{name}'? Give --from, set sources.{name}.path in params.yaml, or set "
                "AGIQA_DATA to the folder that holds your data sets."
            )
        where = str(Path(shelf) / name)
    if given and chosen != "csv":
        option = "--" + next(iter(given)).replace("_columns", "-column").replace("_", "-")
        raise click.UsageError(f"{option} is for a CSV; '{name}' is read as {chosen}.")
    return dataclasses.replace(source, kind=chosen, path=where)


def _prepare(name: str, source: Source, folder: Path, params: Params, skip_bad: bool) -> Any:
    from agiqa.datasets import DATASETS

    make, path = DATASETS[source.kind], Path(source.path).expanduser()
    workers = params.prepare.workers
    if source.kind == "demo":
        return make(folder, params.prepare.seed, workers=workers)
    if source.kind == "agiqa-3k":
        return dataclasses.replace(make(path, skip_bad=skip_bad, workers=workers), name=name)
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
        root=Path(source.root) if source.root else None,
        name=name,
        skip_bad=skip_bad,
        workers=workers,
    )
