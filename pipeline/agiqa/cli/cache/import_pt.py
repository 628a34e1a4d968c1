"""`agiqa cache import-pt`: features that MA-AGIQA's reference code saved."""

from pathlib import Path

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import as_json, cache, plain_name
from agiqa.cli.output import echo, show


@click.command("import-pt", cls=Command)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--dataset", required=True, help="The prepared data set that the files belong to.")
@click.option("--name", default="reference", show_default=True, help="Of the pack to write.")
@click.option("--source", default="", help="Where the files come from, in your words.")
@click.option("--model", default="", help="What made them, in your words. Default: unknown.")
@click.option(
    "--format",
    "suffix",
    type=click.Choice(["zarr", "h5"]),
    default="zarr",
    show_default=True,
    help="Of the pack.",
)
@click.option(
    "--skip-missing", is_flag=True, help="Leave out images without a usable file for each vector."
)
@cache
@as_json
def command(
    folder: Path,
    dataset: str,
    name: str,
    source: str,
    model: str,
    suffix: str,
    skip_missing: bool,
    cache: Path,
    as_json: bool,
) -> None:
    r"""Keep the features in FOLDER: *_semantic_content.pt and *_coherence.pt.

    Files are matched to the images of DATASET by name and read without running anything in them.
    They go into the ledger and into CACHE/DATASET/NAME.zarr, under a fingerprint that says what is
    unknown about them; --source and --model are part of it, so that imports of different origin
    stay apart.

    \b
    agiqa cache import-pt features/AGIQA-3K --dataset agiqa-3k --model mplug-owl2-llama2-7b
    agiqa fit agiqa-3k --set semantic.name=reference
    """
    from agiqa.data.datasets.table import read_table
    from agiqa.store import default_root
    from agiqa.store.upkeep.import_pt import import_pt

    plain_name(name, "--name")
    table = read_table(cache / dataset)
    pack = cache / dataset / f"{name}.{suffix}"
    imported = import_pt(
        folder,
        table,
        pack,
        default_root(),
        source=source,
        model=model,
        skip_missing=skip_missing,
    )
    for bad in imported.skipped:
        echo(f"Skipped {bad.path}: {bad.reason}", err=True)
    result = {
        "pack": str(imported.pack),
        "images": imported.images,
        "width": imported.width,
        "saved_as": imported.saved_as,
        "skipped": [f"{bad.path}: {bad.reason}" for bad in imported.skipped]
        if as_json
        else len(imported.skipped),
        "unused_files": imported.unused,
        "next": f"agiqa fit {dataset} --set semantic.name={name}"
        + (f" --set semantic.format={suffix}" if suffix != "zarr" else ""),
    }
    show(result, as_json)
