"""`agiqa splits`: split files, ours and other people's, and what leaks between their sides."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agiqa.cli.lazy import Command, LazyGroup
from agiqa.cli.options import ANY, as_json, cache, out_file
from agiqa.cli.output import echo, print_json, print_table, show
from agiqa.core.errors import AgiqaError, UsageError

if TYPE_CHECKING:
    from agiqa.data.datasets.table import ImagesTable
    from agiqa.data.leak_audit import SideOverlap

# Command: its function here, and the line that `agiqa splits --help` shows.
COMMANDS = {
    "show": ("splits:list_", "The protocols of a data set: sizes, and what they leak."),
    "import": ("splits:import_", "A CSV of names and sides as a protocol of its own."),
    "export": ("splits:export", "A protocol as a CSV that others can use."),
    "audit": ("splits:audit_", "Shared prompts, files and near-identical images across sides."),
}
HEADINGS = (
    "protocol", "splits", "train/val/test", "prompt shared", "group shared", "file shared",
    "sha256",
)  # fmt: skip
MEASURES = {
    "same_prompt": "same prompt",
    "same_group": "same group",
    "same_file": "same file",
    "near": "near-identical",
}


@click.group("splits", cls=LazyGroup, loads=COMMANDS)
def command() -> None:
    r"""Split files: who trains, who selects, who is tested.

    `agiqa prepare` writes one for each protocol; results name theirs.

    \b
    agiqa splits show agiqa-3k
    agiqa splits import agiqa-3k smith2024.csv --protocol smith2024
    agiqa splits audit agiqa-3k
    """


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

    table, protocols = _table_and_protocols(dataset, cache)
    known = {
        "same_prompt": bool((table.frame["prompt"].str.strip() != "").any()),
        "same_group": has_own_groups(table.frame),
        "same_file": True,
    }
    listed = [_protocol(name, cache / dataset, table, known) for name in protocols]
    if as_json:
        print_json(listed)
        return
    rows = [_row(entry) for entry in listed]
    headings = [name for name in HEADINGS if name != "group shared" or known["same_group"]]
    print_table(
        headings,
        [[row.get(name, "") for name in headings] for row in rows],
        caption="sizes: the least of the splits; shared with training or validation: of the test "
        "images, and images a split",
    )
    for entry in listed:
        if "unusable" in entry:
            echo(f"{entry['protocol']}: {entry['unusable']}", err=True)


def _table_and_protocols(dataset: str, cache: Path) -> "tuple[ImagesTable, list[str]]":
    """Read the images table, and list the protocols that have a split file; AgiqaError of none."""
    from agiqa.data.datasets.table import read_table
    from agiqa.data.splits.files import protocols_there

    table, protocols = read_table(cache / dataset), protocols_there(cache / dataset)
    if not protocols:
        raise AgiqaError(f"{cache / dataset}/splits: no split files; run `agiqa prepare {dataset}`")
    return table, protocols


def _protocol(
    protocol: str, folder: Path, table: "ImagesTable", known: dict[str, bool]
) -> dict[str, Any]:
    """Describe a protocol's splits, or why they cannot be used; leaks of the `known` kinds."""
    from agiqa.data.splits.files import leaks, read_protocol, split_digest

    try:
        splits = read_protocol(folder, table, protocol)
    except AgiqaError as error:
        return {"protocol": protocol, "unusable": str(error)}
    counts = leaks(splits, table)
    return {
        "protocol": protocol,
        "splits": len(counts),
        **{side: [getattr(leak, side) for leak in counts] for side in ("train", "val", "test")},
        **{k: sum(getattr(leak, k) for leak in counts) if known[k] else None for k in known},
        "sha256": split_digest(splits),
    }


def _row(entry: dict[str, Any]) -> dict[str, str]:
    """Write a protocol's cells by HEADINGS."""
    from agiqa.data.splits.files import percent

    if "unusable" in entry:
        return {"protocol": entry["protocol"], "splits": "unusable"}
    prompts, groups, test = entry["same_prompt"], entry["same_group"], sum(entry["test"])
    return {
        "protocol": entry["protocol"],
        "splits": str(entry["splits"]),
        "train/val/test": "/".join(f"{min(entry[side]):,}" for side in ("train", "val", "test")),
        "prompt shared": "no prompts known" if prompts is None else percent(prompts, test),
        "group shared": "" if groups is None else percent(groups, test),
        "file shared": f"{entry['same_file'] / entry['splits']:.1f}",
        "sha256": entry["sha256"][:12],
    }


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
    from agiqa.data.splits.files import shared, write_imported
    from agiqa.data.splits.importing import import_splits

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


@click.command("audit", cls=Command)
@click.argument("dataset")
@click.option(
    "--protocol", "protocols", multiple=True, help="Default: every split file. Repeatable."
)
@click.option(
    "--distance",
    type=click.IntRange(0, 16),
    default=6,
    show_default=True,
    help="Most bits of 64 in which the perceptual hashes of near-identical images differ.",
)
@cache
@as_json
def audit_(
    dataset: str, protocols: tuple[str, ...], distance: int, cache: Path, as_json: bool
) -> None:
    r"""Count what the sides of DATASET's splits share.

    Three kinds of relatives: the same prompt, a byte-identical file, a near-identical picture of
    another file. Perceptual hashes are kept in the user's cache folder ($AGIQA_HASHES), so only the
    first audit reads the images.

    \b
    agiqa splits audit agiqa-3k
    agiqa splits audit agiqa-3k --protocol grouped --json
    """
    from agiqa.data.datasets.groups import has_own_groups
    from agiqa.data.leak_audit import audit, near_hashes, perceptual_hashes
    from agiqa.data.splits.files import read_protocol

    table, present = _table_and_protocols(dataset, cache)
    selected = {name: read_protocol(cache / dataset, table, name) for name in protocols or present}
    near = near_hashes(perceptual_hashes(table), distance)
    audits = {protocol: audit(table, splits, near) for protocol, splits in selected.items()}
    if as_json:
        result = {name: {"across": list(map(asdict, across))} for name, across in audits.items()}
        print_json({"dataset": dataset, "distance": distance, "protocols": result})
        return
    measures = [name for name in MEASURES if name != "same_group" or has_own_groups(table.frame)]
    print_table(
        ["protocol", "splits", "sides", "images", *(MEASURES[name] for name in measures)],
        [row for across in audits.values() for row in _overlap_rows(across, measures)],
        title=f"{dataset}: images of one side with a relative on the other, over all splits",
        caption=f"near-identical: another file, at most {distance} of 64 bits differ",
    )


def _overlap_rows(across: "list[SideOverlap]", measures: list[str]) -> list[list[str]]:
    """Sum one protocol's overlaps over its splits: a row for each pair of sides."""
    rows = []
    for side, other in dict.fromkeys((split.side, split.other) for split in across):
        splits = [split for split in across if (split.side, split.other) == (side, other)]
        images = sum(split.images for split in splits)
        cells = [_share(sum(getattr(split, m) for split in splits), images) for m in measures]
        pair = f"{side} in {other}"
        rows.append([splits[0].protocol, str(len(splits)), pair, f"{images:,}", *cells])
    return rows


def _share(count: int, images: int) -> str:
    from agiqa.data.splits.files import percent

    return f"{count:,} ({percent(count, images)})" if count else "0"
