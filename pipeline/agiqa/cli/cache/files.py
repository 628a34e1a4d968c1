"""`agiqa cache convert`, `export`, `import-pt` and `merge`: vectors into other files, and back."""

from dataclasses import asdict
from pathlib import Path

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import ANY, OUT_FILE, PACK, as_json, cache, plain_name
from agiqa.cli.output import echo, show
from agiqa.core.errors import AgiqaError


@click.command("convert", cls=Command)
@click.argument("pack", type=PACK)
@click.argument("target", type=ANY)
@click.option("--force", is_flag=True, help="Replace another pack that TARGET holds.")
@as_json
def convert(pack: Path, target: Path, force: bool, as_json: bool) -> None:
    r"""Write PACK as TARGET in the other format, which its suffix names: .zarr or .h5.

    Nothing is lost: converted back, it is the same bytes again. PACK, which may be a URL, stays.
    The answers' pack beside it (<name>-answers) is a pack of its own.

    \b
    agiqa cache convert cache/demo/nano.zarr cache/demo/nano.h5
    agiqa cache convert --force nano.h5 nano.zarr
    """
    from agiqa.store.upkeep.export import convert_pack

    written = convert_pack(pack, target, force)
    result = {"pack": str(pack), "target": str(target), "written": written}
    if as_json:
        show(result, as_json)
    else:
        echo(f"{target}: " + ("written" if written else "already the same as " + str(pack)))


@click.command("export", cls=Command)
@click.argument("pack", type=PACK)
@click.option(
    "-o", "--out", required=True, type=OUT_FILE, help="The file to write: *.safetensors or *.npz."
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@as_json
def export(pack: Path, out: Path, force: bool, as_json: bool) -> None:
    r"""Write PACK (.zarr, .h5; a path or a URL) as one file that numpy or safetensors read.

    One array a vector, named vectors/<name>; image_id; path, where the images table lies beside
    the pack; fingerprints as JSON in the metadata. No pickles.

    \b
    agiqa cache export cache/demo/nano.zarr -o nano.npz
    agiqa cache export cache/demo/nano.h5 -o nano.safetensors
    """
    from agiqa.store.upkeep.export import export as export_pack

    names = export_pack(pack, out, force)
    show({"file": str(out), "arrays": list(names) if as_json else ", ".join(names)}, as_json)


@click.command("import-pt", cls=Command)
@click.argument("folder", type=ANY)
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
def import_pt(
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
    from agiqa.store.upkeep.import_pt import import_pt as import_files

    plain_name(name, "--name")
    table = read_table(cache / dataset)
    pack = cache / dataset / f"{name}.{suffix}"
    about = {"source": source, "model": model}
    imported = import_files(folder, table, pack, default_root(), **about, skip_missing=skip_missing)
    skipped = [f"{bad.path}: {bad.reason}" for bad in imported.skipped]
    for line in skipped:
        echo(f"Skipped {line}", err=True)
    result = {
        "pack": str(imported.pack),
        "images": imported.images,
        "width": imported.width,
        "saved_as": imported.saved_as,
        "skipped": skipped if as_json else len(skipped),
        "unused_files": imported.unused,
        "next": f"agiqa fit {dataset} --set semantic.name={name}"
        + (f" --set semantic.format={suffix}" if suffix != "zarr" else ""),
    }
    show(result, as_json)


@click.command("merge", cls=Command)
@click.argument("sources", nargs=-1, required=True, type=PACK)
@as_json
def merge(sources: tuple[Path, ...], as_json: bool) -> None:
    r"""Add the rows of SOURCES to this ledger ($AGIQA_STORE).

    A source is a ledger of another machine, one shelf of it, or a pack (.zarr, .h5; a path or a
    URL). Each row goes under its own fingerprint. Rows that are there already are passed over, also
    those with other numbers, which are counted; damaged rows are left out, and the exit status is
    then 1. After a stop, the same command goes on.

    Vectors whose question holds the image's own prompt are taken from a pack only where the images
    table lies beside it.

    \b
    agiqa cache merge /mnt/gpu-box/ledger
    agiqa cache merge ~/usb/ledger/lmm-0f3a9c1b2d4e5f60 ~/usb/ledger-2
    dvc pull && agiqa cache merge cache/*/*.zarr
    """
    from agiqa.store import default_root
    from agiqa.store.upkeep.merge import merge as merge_into

    results = merge_into(sources, default_root())
    if as_json:
        merged = [
            {"source": str(result.source), "vector": result.name, "there": result.rows.present}
            | {key: value for key, value in asdict(result.rows).items() if key != "present"}
            for result in results
        ]
        show({"ledger": str(default_root()), "merged": merged}, as_json)
    for result in results:
        rows, name = result.rows, f" {result.name}" if result.name else ""
        if rows.refused:
            echo(f"{result.source}{name}: nothing taken: {rows.refused}", err=True)
        elif not as_json:
            echo(
                f"{result.source}{name}: {rows.rows} rows, {rows.added} added, {rows.present} "
                "there already"
                + (f", {len(rows.kept)} there with other numbers and kept" if rows.kept else "")
                + (f", {len(rows.damaged)} damaged and left out" if rows.damaged else "")
            )
        for row in rows.damaged:
            echo(f"Damaged in {result.source}{name}: {row}", err=True)
    lost = sum(len(result.rows.damaged) for result in results)
    refused = sum(bool(result.rows.refused) for result in results)
    if lost or refused:
        raise AgiqaError(
            f"{lost} damaged rows and {refused} whole vectors were left out, as listed; all others "
            f"are in {default_root()}. What is left out is computed again by `agiqa extract`."
        )
