"""What the test side of a split has in common with its training side: prompts and whole files.

Counted from the images table alone, for every split that `prepare` writes; `agiqa.audit` looks at
the pictures too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from agiqa.datasets.table import ImagesTable, write_whole
from agiqa.json_text import json_text
from agiqa.splits.sides import SIDES


@dataclass(frozen=True)
class Leak:
    """What the test side of one split has in common with its training side."""

    protocol: str
    seed: int
    train: int  # images
    val: int
    test: int
    same_group: int  # test images whose group (prompt) occurs in training too
    same_file: int  # test images of which a byte-identical file is in training


def leaks(splits: pd.DataFrame, table: ImagesTable) -> list[Leak]:
    """For every split, how many test images share a group, or a byte-identical file, with train."""
    group = dict(zip(table.frame["path"], table.frame["group"], strict=True))
    found = []
    for protocol, seed in splits[["protocol", "seed"]].drop_duplicates().itertuples(index=False):
        split = splits[(splits["protocol"] == protocol) & (splits["seed"] == seed)]
        of = {side: split[split["side"] == side] for side in SIDES}
        groups = {group[name] for name in of["train"]["name"]} - {""}
        files = set(of["train"]["image_id"])
        found.append(
            Leak(
                protocol=str(protocol),
                seed=int(seed),
                train=len(of["train"]),
                val=len(of["val"]),
                test=len(of["test"]),
                same_group=sum(group[name] in groups for name in of["test"]["name"]),
                same_file=int(of["test"]["image_id"].isin(files).sum()),
            )
        )
    return found


def write_leaks(found: Sequence[Leak], path: Path) -> None:
    """Write the leak counts as JSON, a list with one object for each split."""
    text = json_text(found, indent=2) + "\n"
    write_whole(path, text.encode("utf-8"))
