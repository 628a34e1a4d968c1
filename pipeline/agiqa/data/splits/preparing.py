"""All splits of a data set, as `prepare` makes them: our protocols, and the files it imports.

With each goes what its test side has in common with training and validation: prompts and files,
counted from the images table alone; `agiqa.data.leak_audit` looks at the pictures too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from agiqa.core.errors import AgiqaError
from agiqa.core.json_text import json_text
from agiqa.core.params import Splits
from agiqa.core.whole_files import write_whole
from agiqa.data.datasets.groups import Relatives, has_own_groups
from agiqa.data.datasets.origin import note_imported
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.splits.files import (
    FOLDER,
    protocols_there,
    read_protocol,
    read_splits,
    side_rows,
    split_digest,
    write_splits,
)
from agiqa.data.splits.importing import Imported, import_splits
from agiqa.data.splits.protocols import PROTOCOLS, has_official, has_paper, make_splits

LEAKS = "leaks.json"
OFFERED = {"official": has_official, "paper": has_paper}  # protocols of some data sets alone
# What a test side needs before its figures say something.
LEAST_CORRELATED = 3  # images
VAL_SHARE = 0.125  # of a training side, where somebody's splits (80/20) have no validation
LEAST_FITTED = 30  # images, before the logistic curve stops flattering
LEAST_GROUPS = 5  # prompts, for intervals that draw them anew


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


@dataclass(frozen=True)
class Prepared:
    """Splits by protocol, and why a protocol has none."""

    splits: dict[str, pd.DataFrame]
    absent: dict[str, str]


def make_all_splits(table: ImagesTable, settings: Splits, files: Mapping[str, str]) -> Prepared:
    """Make every protocol that the data set allows, and read all files of others' splits.

    A table without a target has no splits. Files (or folders) of names and sides come by protocol
    name; where they have no validation, VAL_SHARE of the training images is taken for it.

    Raises:
        AgiqaError: too few images for any split, or a file that does not fit the data set.
    """
    splits: dict[str, pd.DataFrame] = {}
    absent: dict[str, str] = {}
    if not table.targets:
        return Prepared(splits, absent)
    for protocol in PROTOCOLS:
        if protocol in OFFERED and not OFFERED[protocol](table):
            continue
        try:
            splits[protocol] = make_splits(
                table,
                protocol,
                count=settings.count,
                seed=settings.seed,
                ratio=(*settings.ratio,),  # type: ignore[arg-type]
            )
        except AgiqaError as error:
            absent[protocol] = str(error)
    if not splits:
        raise AgiqaError(f"{absent['random']}; to score images only, give their folder")
    for protocol, file in files.items():
        path = Path(file).expanduser()
        splits[protocol] = import_splits(path, table, protocol, val_share=VAL_SHARE).splits
    return Prepared(splits, absent)


def small_test_sides(prepared: Prepared, table: ImagesTable) -> str:
    """Say what results so few test images or prompts cannot give; "" if they are enough."""
    protocol = next((name for name in ("grouped", "random") if name in prepared.splits), "")
    if not protocol:
        return ""
    splits = prepared.splits[protocol]
    group = dict(zip(table.frame["path"], table.frame["group"], strict=True))
    test = splits[splits["side"] == "test"]
    images = int(test.groupby("seed").size().min())
    groups = int(test["name"].map(group).groupby(test["seed"]).nunique().min())
    has_groups = bool((table.frame["group"] != "").any())
    needs = {
        f"correlations need {LEAST_CORRELATED} images": images < LEAST_CORRELATED,
        f"figures after a fitted curve {LEAST_FITTED}": images < LEAST_FITTED,
        f"95 % intervals {LEAST_GROUPS} prompts": has_groups and groups < LEAST_GROUPS,
    }
    if not any(needs.values()):
        return ""
    sizes = f"{images} image{'s' * (images != 1)}"
    if has_groups:
        sizes += f" of {groups} prompt{'s' * (groups != 1)}"
    return (
        f"{table.name}: a test side of protocol {protocol} has {sizes}, too few for results "
        f"({', '.join(need for need, unmet in needs.items() if unmet)}): what is fitted on "
        "this data set is a trial"
    )


def write_all_splits(prepared: Prepared, table: ImagesTable, folder: Path) -> list[Leak]:
    """Write them under the data set's folder, and count the leaks of all that lie there.

    Imported protocols that lie there already stay; one that the images have outgrown is left as it
    is and not counted (`fit` refuses it).
    """
    for protocol, splits in prepared.splits.items():
        write_splits(splits, folder / FOLDER / f"{protocol}.csv")
    return count_leaks(table, folder)


def count_leaks(table: ImagesTable, folder: Path) -> list[Leak]:
    """Count the leaks of every usable split file in the data set's folder, and write them there."""
    counts: list[Leak] = []
    protocols = protocols_there(folder)
    for protocol in [
        *(p for p in PROTOCOLS if p in protocols),
        *(p for p in protocols if p not in PROTOCOLS),
    ]:
        try:
            counts += leaks(read_protocol(folder, table, protocol), table)
        except AgiqaError:
            continue
    if counts:
        text = json_text(counts, indent=2) + "\n"
        write_whole(folder / FOLDER / LEAKS, text.encode("utf-8"))
    return counts


def write_imported(
    imported: Imported, table: ImagesTable, folder: Path, protocol: str, file: Path, replace: bool
) -> list[Leak]:
    """Write other people's splits as a protocol under the data set's folder, and count its leaks.

    Where they come from is noted: a change of the file is seen by `fit`.

    Raises:
        AgiqaError: other splits have the name, and they are not to be replaced.
    """
    path = folder / FOLDER / f"{protocol}.csv"
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
    return leaks(imported.splits, table)


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
                **relatives.counts(test, known),
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
