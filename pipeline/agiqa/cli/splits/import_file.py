"""`agiqa splits import`: other people's splits."""

from pathlib import Path

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import as_json, cache, show


@click.command("import", cls=Command)
@click.argument("dataset")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--protocol", required=True, help="Name that its results go by, such as smith2024.")
@click.option("--name-column", default="", help="Column of images. Default: name, path, image ...")
@click.option("--side-column", default="", help="Column of sides. Default: side, set, split ...")
@click.option("--seed-column", default="", help="Column that counts the splits. Default: seed.")
@click.option(
    "--val-share",
    type=click.FloatRange(0, 0.5),
    default=0.0,
    help="Share of train to take for validation where the file has none.",
)
@click.option("--replace", is_flag=True, help="Overwrite other splits of this protocol name.")
@cache
@as_json
def command(
    dataset: str,
    file: Path,
    protocol: str,
    name_column: str,
    side_column: str,
    seed_column: str,
    val_share: float,
    replace: bool,
    cache: Path,
    as_json: bool,
) -> None:
    r"""Make FILE, a CSV of names and sides, a protocol of DATASET.

    Sides are train, val and test in their usual spellings; names are paths, base names or stems.
    A name that fits no image, or two, refuses the file. `agiqa fit --protocol NAME` takes it then.

    \b
    agiqa splits import agiqa-3k smith2024.csv --protocol smith2024
    agiqa splits import mine folds.csv --protocol folds --seed-column fold --val-share 0.1
    """
    from agiqa.core.errors import AgiqaError
    from agiqa.data.datasets.origin import note_imported
    from agiqa.data.datasets.table import read_table
    from agiqa.data.splits import (
        count_leaks,
        import_splits,
        leaks,
        protocols_there,
        read_splits,
        shared,
        split_digest,
        write_splits,
    )

    folder = cache / dataset
    table = read_table(folder)
    imported = import_splits(
        file,
        table,
        protocol,
        name_column=name_column,
        side_column=side_column,
        seed_column=seed_column,
        val_share=val_share,
    )
    path = folder / "splits" / f"{protocol}.csv"
    if protocol in protocols_there(folder) and not replace:
        try:
            same = split_digest(read_splits(path)) == split_digest(imported.splits)
        except AgiqaError:
            same = False
        if not same:
            raise AgiqaError(
                f"{path} holds other splits already, and a protocol's results must be of the same "
                "splits: choose another name, or overwrite them with --replace"
            )
    write_splits(imported.splits, path)
    note_imported(folder, protocol, file)
    count_leaks(table, folder)
    found = leaks(imported.splits, table)
    sizes = f"{found[0].train}/{found[0].val}/{found[0].test}"
    show(
        {
            "splits": str(path),
            "count": f"{len(found)} x {sizes}",
            "matched": ", ".join(f"{n} by {by}" for by, n in imported.matched.items() if n),
            "not_in_the_file": imported.left_out,
            "validation_from_train": imported.val_from_train,
            "leaks": shared(found, table.frame),
            "next": f"agiqa fit {dataset} --protocol {protocol}",
        },
        as_json,
    )
