"""`agiqa splits show`, `import` and `export`: split files, ours and other people's."""

import re
from pathlib import Path
from typing import Any

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import ANY, as_json, cache, out_file
from agiqa.cli.output import echo, print_json, print_table, show
from agiqa.core.errors import AgiqaError, UsageError


@click.command("show", cls=Command)
@click.argument("dataset")
@cache
@as_json
def list_(dataset: str, cache: Path, as_json: bool) -> None:
    r"""List DATASET's split files: how many splits, their sizes, their leaks, their sha256.

    Leaks are test images that share a prompt, or a byte-identical file, with training or
    validation; `agiqa splits audit` looks at the pictures too.

    \b
    agiqa splits show agiqa-3k
    agiqa splits show agiqa-3k --json
    """
    from agiqa.data.datasets.groups import has_own_groups
    from agiqa.data.datasets.table import read_table
    from agiqa.data.splits.files import protocols_there, read_protocol, split_digest
    from agiqa.data.splits.preparing import leaks

    folder = cache / dataset
    table = read_table(folder)
    protocols = protocols_there(folder)
    if not protocols:
        raise AgiqaError(f"{folder}/splits: no split files; run `agiqa prepare {dataset}`")
    listed: list[dict[str, Any]] = []
    prompts = bool((table.frame["prompt"].str.strip() != "").any())
    has_groups = has_own_groups(table.frame)
    for protocol in protocols:
        try:
            splits = read_protocol(folder, table, protocol)
        except AgiqaError as error:
            listed.append({"protocol": protocol, "unusable": str(error)})
            continue
        counts = leaks(splits, table)
        listed.append(
            {
                "protocol": protocol,
                "splits": len(counts),
                "train": [leak.train for leak in counts],
                "val": [leak.val for leak in counts],
                "test": [leak.test for leak in counts],
                "same_prompt": sum(leak.same_prompt for leak in counts) if prompts else None,
                "same_group": sum(leak.same_group for leak in counts) if has_groups else None,
                "same_file": sum(leak.same_file for leak in counts),
                "sha256": split_digest(splits),
            }
        )
    if as_json:
        print_json(listed)
        return
    _print_protocols(listed, has_groups)


def _print_protocols(listed: list[dict[str, Any]], has_groups: bool) -> None:
    from agiqa.data.splits.preparing import percent

    rows = []
    for entry in listed:
        if "unusable" in entry:
            rows.append([entry["protocol"], "unusable", *[""] * (4 + has_groups)])
            continue
        shared, test = entry["same_prompt"], sum(entry["test"])
        sizes = [min(entry[side]) for side in ("train", "val", "test")]
        rows.append(
            [
                entry["protocol"],
                str(entry["splits"]),
                "/".join(f"{size:,}" for size in sizes),
                "no prompts known" if shared is None else percent(shared, test),
                *([percent(entry["same_group"], test)] if has_groups else []),
                f"{entry['same_file'] / entry['splits']:.1f}",
                entry["sha256"][:12],
            ]
        )
    print_table(
        [
            "protocol",
            "splits",
            "train/val/test",
            "prompt shared",
            *(["group shared"] if has_groups else []),
            "file shared",
            "sha256",
        ],
        rows,
        caption="sizes: the least of the splits; shared with training or validation: of the test "
        "images, and images a split",
    )
    for entry in listed:
        if "unusable" in entry:
            echo(f"{entry['protocol']}: {entry['unusable']}", err=True)


@click.command("import", cls=Command)
@click.argument("dataset")
@click.argument("file", type=ANY)
@click.option("--protocol", required=True, help="Name that its results go by, such as smith2024.")
@click.option(
    "--name-column",
    default="",
    help="Column of images, or several as model/image. Default: name, path, image ...",
)
@click.option("--side-column", default="", help="Column of sides. Default: side, set, split ...")
@click.option("--seed-column", default="", help="Column that counts the splits. Default: seed.")
@click.option(
    "--val-share",
    type=click.FloatRange(0, 0.5),
    default=0.0,
    help="Share of train to take for validation where a split has none.",
)
@click.option("--only-splits", default="", help="Of several, those numbered so: 0-9, or 3.")
@click.option("--replace", is_flag=True, help="Overwrite other splits of this protocol name.")
@cache
@as_json
def import_(
    dataset: str,
    file: Path,
    protocol: str,
    name_column: str,
    side_column: str,
    seed_column: str,
    val_share: float,
    only_splits: str,
    replace: bool,
    cache: Path,
    as_json: bool,
) -> None:
    r"""Make FILE, names and sides in somebody's layout, a protocol of DATASET.

    A CSV with a column of sides; a JSON list; a .mat of index lists; a folder of train.csv, val.csv
    and test.csv (or .json), or of numbered folders of them. Sides are train, val and test in their
    usual spellings; names are paths, base names or stems. A name that fits no image, or two,
    refuses the file. `agiqa fit --protocol NAME` takes it then.

    \b
    agiqa splits import agiqa-3k smith2024.csv --protocol smith2024
    agiqa splits import agiqa-3k IPCE/Database/AGIQA-3K --protocol ipce --val-share 0.125
    agiqa splits import mine folds.csv --protocol folds --seed-column fold --val-share 0.125
    """
    from agiqa.data.datasets.table import read_table
    from agiqa.data.splits.importing import import_splits
    from agiqa.data.splits.preparing import shared, write_imported

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
        only=_numbers(only_splits),
    )
    leaks = write_imported(imported, table, folder, protocol, file, replace)
    result = {
        "splits": str(folder / "splits" / f"{protocol}.csv"),
        "count": f"{len(leaks)} x {leaks[0].train}/{leaks[0].val}/{leaks[0].test}",
        "matched": ", ".join(f"{n} by {by}" for by, n in imported.matched.items() if n),
        "not_in_the_file": imported.left_out,
        "validation_from_train": imported.val_from_train,
        "leaks": shared(leaks, table.frame),
        "next": f"agiqa fit {dataset} --protocol {protocol}",
    }
    show(result, as_json)


def _numbers(text: str) -> tuple[int, int] | None:
    """Read the first and the last number of `0-9` or `3`; None of no text."""
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", text.strip())
    if match is None:
        raise UsageError(f"--only-splits: expected numbers such as 0-9 or 3, found {text!r}")
    return int(match[1]), int(match[2] or match[1])


@click.command("export", cls=Command)
@click.argument("dataset")
@click.option("--protocol", required=True, help="Which splits: grouped, random, paper ...")
@click.option("--seed", type=int, help="One split alone. Default: all of them.")
@out_file("The CSV. Default: standard output.")
@cache
def export(dataset: str, protocol: str, seed: int | None, out: Path | None, cache: Path) -> None:
    r"""Write DATASET's splits as a CSV: name, side, seed, and the sha256 of each file.

    `agiqa splits import` reads it back, and refuses it where a file is another one.

    \b
    agiqa splits export agiqa-3k --protocol grouped -o agiqa-3k-grouped.csv
    agiqa splits export agiqa-3k --protocol paper --seed 20
    """
    from agiqa.core.whole_files import write_whole
    from agiqa.data.datasets.table import read_table
    from agiqa.data.splits.files import read_protocol

    splits = read_protocol(cache / dataset, read_table(cache / dataset), protocol)
    if seed is not None:
        split = splits[splits["seed"] == seed]
        if split.empty:
            seeds = ", ".join(map(str, splits["seed"].unique()))
            raise AgiqaError(f"{dataset}, {protocol}: no split of seed {seed}; there are: {seeds}")
        splits = split
    text = splits[["name", "side", "seed", "image_id"]].to_csv(index=False, lineterminator="\n")
    if out is None:
        echo(text, nl=False)
    else:
        write_whole(out, text.encode("utf-8"))
