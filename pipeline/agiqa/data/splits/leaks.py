"""What the test side of a split has in common with training and validation: prompts and files.

Counted from the images table alone, for every split that `prepare` writes; `agiqa.data.leak_audit`
looks at the pictures too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from agiqa.data.datasets.groups import Relatives, has_own_groups
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.splits.files import side_rows


@dataclass(frozen=True)
class Leak:
    """What the test side of one split has in common with its training and validation sides."""

    protocol: str
    seed: int
    train: int  # images
    val: int
    test: int
    same_group: int  # test images whose group occurs in training or validation too
    same_file: int  # test images of which a byte-identical file is there
    same_prompt: int  # test images whose prompt occurs there


def leaks(splits: pd.DataFrame, table: ImagesTable) -> list[Leak]:
    """Count for every split of one protocol the test images with a relative on another side."""
    relatives = Relatives(table.frame)
    protocol = str(splits["protocol"].iloc[0])
    counts = []
    for seed, rows in side_rows(splits, table).items():
        known, test = np.concatenate([rows["train"], rows["val"]]), rows["test"]
        counts.append(
            Leak(
                protocol=protocol,
                seed=seed,
                train=len(rows["train"]),
                val=len(rows["val"]),
                test=len(test),
                same_group=int(relatives.of_group(relatives, known)[test].sum()),
                same_file=int(relatives.of_file(relatives, known)[test].sum()),
                same_prompt=int(relatives.of_prompt(relatives, known)[test].sum()),
            )
        )
    return counts


def shared(leaks_found: Sequence[Leak], frame: pd.DataFrame) -> str:
    """Say which share of a table's test images has a relative on another side."""
    test = sum(leak.test for leak in leaks_found)
    files = sum(leak.same_file for leak in leaks_found)
    kinds = []
    if has_own_groups(frame):
        kinds.append(("group", sum(leak.same_group for leak in leaks_found)))
    if (frame["prompt"].str.strip() != "").any():
        kinds.append(("prompt", sum(leak.same_prompt for leak in leaks_found)))
    if not kinds:
        return f"no prompts are known, {files} test images share a file with training or validation"
    shares = " and ".join(f"{percent(count, test)} of test images share a {kind}"
                        for kind, count in kinds)  # fmt: skip
    return f"{shares} with training or validation, {files} a file"


def percent(part: int, whole: int) -> str:
    """Write `0 %`, `60 %`: never 0 where there is one, never 100 where one is missing."""
    share = 100 * part / whole
    if part in (0, whole) or 10 <= share < 99.5:
        return f"{share:.0f} %"
    return f"{max(share, 0.001):.2g} %" if share < 10 else f"{math.floor(share * 10) / 10:.1f} %"
