"""Split files: one CSV a protocol, with name, image_id, seed, side and protocol of every image.

`prepare` makes them of all our protocols and of the files of others that it imports; `fit` and
`evaluate` read them and nothing else decides which image is tested; people may read them too, or
give them away. With each goes what its test side has in common with training and validation:
prompts and files, counted from the images table alone; `agiqa.data.leak_audit` looks at the
pictures too.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from agiqa.core.errors import AgiqaError, some
from agiqa.core.json_text import json_text
from agiqa.core.params import Splits
from agiqa.core.whole_files import write_whole
from agiqa.data.datasets.groups import Relatives, has_own_groups
from agiqa.data.datasets.origin import note_imported
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.datasets.text_table import read_text_csv
from agiqa.data.splits.importing import Imported, import_splits
from agiqa.data.splits.protocols import (
    COLUMNS,
    PAPER_SOURCES,
    PROTOCOLS,
    SIDES,
    has_official,
    has_paper,
    make_splits,
    protocol_name,
)

Sides = dict[int, dict[str, npt.NDArray[np.intp]]]  # row numbers of a table by seed and side
FOLDER = "splits"  # in the data set's folder under cache/
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


def make_all_splits(
    table: ImagesTable, settings: Splits, files: Mapping[str, str]
) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """Make every protocol that the data set allows, and read all files of others' splits.

    A table without a target has no splits. Files (or folders) of names and sides come by protocol
    name; where they have no validation, VAL_SHARE of the training images is taken for it.

    Returns:
        Splits by protocol, and by protocol why one has none.

    Raises:
        AgiqaError: too few images for any split, or a file that does not fit the data set.
    """
    splits: dict[str, pd.DataFrame] = {}
    absent: dict[str, str] = {}
    if not table.targets:
        return splits, absent
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
    return splits, absent


def small_test_sides(by_protocol: Mapping[str, pd.DataFrame], table: ImagesTable) -> str:
    """Say what results so few test images or prompts cannot give; "" if they are enough."""
    protocol = next((name for name in ("grouped", "random") if name in by_protocol), "")
    if not protocol:
        return ""
    splits = by_protocol[protocol]
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


def count_leaks(table: ImagesTable, folder: Path) -> list[Leak]:
    """Count the leaks of every usable split file in the data set's folder, and write them there.

    One that the images have outgrown is left as it is and not counted (`fit` refuses it).
    """
    counts: list[Leak] = []
    present = protocols_there(folder)
    for protocol in dict.fromkeys([*(name for name in PROTOCOLS if name in present), *present]):
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
    relatives, protocol = Relatives(table.frame), str(splits["protocol"].iloc[0])
    return [
        Leak(
            protocol,
            seed,
            **{side: len(rows[side]) for side in SIDES},
            **relatives.counts(rows["test"], np.concatenate([rows["train"], rows["val"]])),
        )
        for seed, rows in side_rows(splits, table).items()
    ]


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


def protocols_there(folder: Path) -> list[str]:
    """List protocols that have a split file in the data set's `folder`, by name."""
    return sorted(path.stem for path in (folder / FOLDER).glob("*.csv"))


def read_protocol(folder: Path, table: ImagesTable, protocol: str) -> pd.DataFrame:
    """Read the split file of `protocol` in the data set's `folder`, checked by its images.

    Raises:
        AgiqaError: there is none (and why, where the data set cannot have it), it is damaged, or
            of another protocol, or made from another state of the data.
    """
    path = folder / FOLDER / f"{protocol_name(protocol)}.csv"
    if not path.is_file():
        present = ", ".join(protocols_there(folder)) or "none"
        if protocol in PROTOCOLS:
            if protocol == "paper" and not has_paper(table):
                raise AgiqaError(
                    f"protocol paper is MA-AGIQA's one split of its own data sets "
                    f"({', '.join(name.rstrip(',') for name in PAPER_SOURCES)}): fit {table.name} "
                    "with --protocol grouped or random"
                )
            make_splits(table, protocol, count=1)  # says why, where it cannot be
            hint = f"Run `agiqa prepare {table.name}`."
        else:
            hint = f"`agiqa splits import {table.name} FILE --protocol {protocol}` adds one."
        raise AgiqaError(f"No split file {path}; there are: {present}. {hint}")
    splits = read_splits(path)
    if foreign := sorted(set(splits["protocol"]) - {protocol}):
        raise AgiqaError(
            f"{path}: expected rows of the protocol {protocol} alone, found {some(foreign)}: "
            "one protocol a file"
        )
    sides = side_rows(splits, table)  # refuses splits of another state of the data
    if protocol == "grouped":
        _require_whole_groups(sides, table, path)
    return splits


def _require_whole_groups(sides: Sides, table: ImagesTable, path: Path) -> None:
    """Refuse grouped splits that part a group: they were dealt by an earlier key of prompts."""
    groups = table.frame["group"]
    for seed, rows in sides.items():
        side_groups = [set(groups.iloc[rows[side]]) - {""} for side in SIDES]
        parted = set.union(*(first & second for first, second in combinations(side_groups, 2)))
        if parted:
            raise AgiqaError(
                f"{path}: expected each group (prompt) on one side, found {len(parted)} of split "
                f"{seed} on several ({some(sorted(map(repr, parted)), 2)}); they were dealt when "
                "groups were told apart otherwise: run `agiqa prepare` again"
            )


def split_digest(splits: pd.DataFrame) -> str:
    """Hash which image stands on which side of which split, whatever the order of rows."""
    rows = splits[["name", "image_id", "seed", "side"]].astype(str).sort_values(["seed", "name"])
    return hashlib.sha256(rows.to_csv(index=False, lineterminator="\n").encode()).hexdigest()


def side_rows(splits: pd.DataFrame, table: ImagesTable) -> Sides:
    """Find row numbers of the table by seed and side, in the order of the split file.

    Raises:
        AgiqaError: the splits were made from another state of the data.
    """
    images = pd.MultiIndex.from_frame(table.frame[["path", "image_id"]])
    rows = images.get_indexer(pd.MultiIndex.from_frame(splits[["name", "image_id"]]))
    foreign = list(splits["name"][rows < 0])
    if foreign:
        raise AgiqaError(
            f"the splits hold {len(foreign)} images that {table.name} has not, or has otherwise "
            f"({some(foreign, 3)}): run `agiqa prepare` again"
        )
    seeds, sides = splits["seed"].to_numpy(), splits["side"].to_numpy()
    return {
        int(seed): {side: rows[(seeds == seed) & (sides == side)] for side in SIDES}
        for seed in pd.unique(splits["seed"])
    }


def write_splits(splits: pd.DataFrame, path: Path) -> None:
    """Write the splits as one CSV, whole or not at all."""
    write_whole(path, splits.to_csv(index=False, lineterminator="\n").encode("utf-8"))


def read_splits(path: Path) -> pd.DataFrame:
    """Read a split file, made here or by hand, and check it."""
    splits = read_text_csv(path, COLUMNS)
    wrong = sorted(set(splits["side"]) - set(SIDES))
    if wrong:
        raise AgiqaError(f"{path}: side must be one of {', '.join(SIDES)}; found {some(wrong)}")
    seeds = pd.to_numeric(splits["seed"], errors="coerce")
    if seeds.isna().any() or (seeds % 1 != 0).any():
        raise AgiqaError(f"{path}: seed must be a whole number in every row")
    splits["seed"] = seeds.astype(int)
    twice = splits[splits.duplicated(["protocol", "seed", "name"])]
    if len(twice):
        raise AgiqaError(
            f"{path}: {len(twice)} images stand twice in one split ({some(list(twice['name']))})"
        )
    return splits[list(COLUMNS)]
