"""Split files: one CSV a protocol, with name, image_id, seed, side and protocol of every image.

`prepare` writes them, `fit` and `evaluate` read them and nothing else decides which image is
tested; people may read them too, or give them away.
"""

import hashlib
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from agiqa.core.errors import AgiqaError, some
from agiqa.core.whole_files import write_whole
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.datasets.text_table import read_text_csv
from agiqa.data.splits.protocols import (
    COLUMNS,
    PAPER_SOURCES,
    PROTOCOLS,
    SIDES,
    has_paper,
    make_splits,
)

Sides = dict[int, dict[str, npt.NDArray[np.intp]]]  # row numbers of a table by seed and side
FOLDER = "splits"  # in the data set's folder under cache/
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def protocol_name(name: str) -> str:
    """Return the name, if it can be a file's and a column's.

    Raises:
        AgiqaError: it holds other signs than letters, digits, dots, dashes and underscores.
    """
    if not _NAME.fullmatch(name):
        raise AgiqaError(
            f"protocol {name!r}: expected a plain name of up to 64 letters, digits, dots, dashes "
            "and underscores, such as smith2024"
        )
    return name


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
