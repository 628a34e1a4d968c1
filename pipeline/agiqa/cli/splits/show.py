"""`agiqa splits show`: a data set's protocols."""

from pathlib import Path
from typing import Any

import click

from agiqa.cli.lazy import Command
from agiqa.cli.lines import echo
from agiqa.cli.options import as_json, cache, print_json


@click.command("show", cls=Command)
@click.argument("dataset")
@cache
@as_json
def command(dataset: str, cache: Path, as_json: bool) -> None:
    r"""List DATASET's split files: how many splits, their sizes, their leaks, their sha256.

    Leaks are test images that share a prompt, or a byte-identical file, with training; `agiqa
    splits audit` looks at the pictures too.

    \b
    agiqa splits show agiqa-3k
    agiqa splits show agiqa-3k --json
    """
    from agiqa.core.errors import AgiqaError
    from agiqa.data.datasets.groups import has_own_groups
    from agiqa.data.datasets.table import read_table
    from agiqa.data.splits import leaks, protocols_there, read_protocol, split_digest

    folder = cache / dataset
    table = read_table(folder)
    there = protocols_there(folder)
    if not there:
        raise AgiqaError(f"{folder}/splits: no split files; run `agiqa prepare {dataset}`")
    listed: list[dict[str, Any]] = []
    prompts = bool((table.frame["prompt"].str.strip() != "").any())
    own = has_own_groups(table.frame)
    for protocol in there:
        try:
            splits = read_protocol(folder, table, protocol)
        except AgiqaError as error:
            listed.append({"protocol": protocol, "unusable": str(error)})
            continue
        found = leaks(splits, table)
        listed.append(
            {
                "protocol": protocol,
                "splits": len(found),
                "train": [leak.train for leak in found],
                "val": [leak.val for leak in found],
                "test": [leak.test for leak in found],
                "same_prompt": sum(leak.same_prompt for leak in found) if prompts else None,
                "same_group": sum(leak.same_group for leak in found) if own else None,
                "same_file": sum(leak.same_file for leak in found),
                "sha256": split_digest(splits),
            }
        )
    if as_json:
        print_json(listed)
        return
    _print(listed, own)


def _print(listed: list[dict[str, Any]], own: bool) -> None:
    from agiqa.cli.tables import print_table
    from agiqa.data.splits import percent

    rows = []
    for each in listed:
        if "unusable" in each:
            rows.append([each["protocol"], "unusable", *[""] * (4 + own)])
            continue
        shared, test = each["same_prompt"], sum(each["test"])
        sizes = [min(each[side]) for side in ("train", "val", "test")]
        rows.append(
            [
                each["protocol"],
                str(each["splits"]),
                "/".join(f"{size:,}" for size in sizes),
                "no prompts known" if shared is None else percent(shared, test),
                *([percent(each["same_group"], test)] if own else []),
                f"{each['same_file'] / each['splits']:.1f}",
                each["sha256"][:12],
            ]
        )
    print_table(
        [
            "protocol",
            "splits",
            "train/val/test",
            "prompt in train",
            *(["group in train"] if own else []),
            "file in train",
            "sha256",
        ],
        rows,
        caption="sizes: the least of the splits; in train: share of the test images, and images "
        "a split",
    )
    for each in listed:
        if "unusable" in each:
            echo(f"{each['protocol']}: {each['unusable']}", err=True)
