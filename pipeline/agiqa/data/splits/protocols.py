"""Splits by a named protocol: who trains, who selects, who is tested.

| protocol | split |
|---|---|
| `grouped` | seeded 70/10/20; all images of a group (a prompt) stay on one side, and so do byte-identical files; where no groups are known, only those |
| `random` | seeded 70/10/20 by image |
| `paper` | MA-AGIQA's own, offered for its data sets: one split, `random.Random(20).shuffle(range(N))`, cut at int(0.7 N) and int(0.8 N) |
| `official` | the data set's own sets, where it has all three and their scores are public |
| any other name | a split file that was imported (`agiqa.data.splits.importing`) |

`random`, `paper` and most imported files put images of one prompt on both sides; `leaks` counts
them, `agiqa.data.leak_audit` looks for near-identical pictures as well.

`deal_…` take a table of images that all have a score, a seed and the ratio, and give row numbers.
Official sides that are absent, or whose scores were never published (AIGIQA-20K's val and test),
make no split, and the error says what to use.
"""  # noqa: E501

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import SET_COLUMN, ImagesTable

SIDES = ("train", "val", "test")
COLUMNS = ("name", "image_id", "seed", "side", "protocol")  # of a split file

NEAR_COLUMN = "near"  # names near-identical pictures, where they are kept together
# As the sources of the data sets that MA-AGIQA reports on begin: the protocol `paper` is its split.
PAPER_SOURCES = ("AGIQA-3K,", "AIGIQA-20K,", "KonIQ-10k,", "SPAQ,")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
Ratio = tuple[float, float, float]
Sides = tuple[list[int], list[int], list[int]]  # row numbers of the table: train, val, test
RATIO: Ratio = (0.7, 0.1, 0.2)


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


def with_scores(table: ImagesTable) -> ImagesTable:
    """Select images with a score in at least one target; all, where the table has no target."""
    if not table.targets:
        return table
    scores = table.frame[[target.name for target in table.targets]].to_numpy(dtype=float)
    scored = np.isfinite(scores).any(axis=1)
    if scored.all():
        return table
    return replace(table, frame=table.frame[scored].reset_index(drop=True))


def deal_grouped(table: ImagesTable, seed: int, ratio: Ratio) -> Sides:
    """Deal groups one by one, in a seeded order, to the cuts nearest to the ratio.

    Where no image names a group, what must stay together is byte-identical files alone.
    """
    bundles = _bundles(table)
    named = named_groups(table)
    if named in (1, 2) or len(bundles) < 3:
        joined = f", which byte-identical files join to {len(bundles)}" if named > 2 else ""
        if not named:
            joined = f" and {len(bundles)} distinct files"
        raise AgiqaError(
            f"protocol grouped needs at least 3 groups (prompts) to train, validate and test; "
            f"{table.name} has {named}{joined}: use --protocol random, or name a prompt or group "
            "column when preparing"
        )
    return _deal(bundles, seed, ratio)


def deal_random(table: ImagesTable, seed: int, ratio: Ratio) -> Sides:
    """Deal images one by one, in a seeded order."""
    return _deal([[row] for row in range(len(table.frame))], seed, ratio)


def _deal(bundles: list[list[int]], seed: int, ratio: Ratio) -> Sides:
    """Shuffle bundles of rows, and cut them nearest to the ratio; no side is left empty."""
    random.Random(seed).shuffle(bundles)
    ends = np.cumsum([len(bundle) for bundle in bundles])
    first = second = _cut(ends, ratio[0], 1, len(bundles) - 1 - (ratio[1] > 0))
    if ratio[1] > 0:
        second = _cut(ends, ratio[0] + ratio[1], first + 1, len(bundles) - 1)
    parts = (bundles[:first], bundles[first:second], bundles[second:])
    train, val, test = ([row for bundle in part for row in bundle] for part in parts)
    return train, val, test


def _cut(ends: npt.NDArray[np.int_], share: float, low: int, high: int) -> int:
    """Count the bundles that come nearest to the share of all images, between low and high."""
    nearest = int(np.argmin(np.abs(ends - share * ends[-1]))) + 1
    return min(max(nearest, low), high)


def deal_paper(table: ImagesTable, seed: int, ratio: Ratio) -> Sides:
    """Make MA-AGIQA's own cuts, whatever the ratio; nothing is rounded to the nearest."""
    order = list(range(len(table.frame)))
    random.Random(seed).shuffle(order)
    first, second = int(0.7 * len(order)), int(0.8 * len(order))
    return order[:first], order[first:second], order[second:]


def named_groups(table: ImagesTable) -> int:
    """Count the groups that the images name."""
    return len(set(table.frame["group"]) - {""})


def _bundles(table: ImagesTable) -> list[list[int]]:
    """Join rows that must stay together by a shared group or file or picture, in table order."""
    count = len(table.frame)
    rows = np.arange(count)
    links = []  # for each row, the first row with the same value
    for column in [name for name in ("group", "image_id", NEAR_COLUMN) if name in table.frame]:
        values = table.frame[column].to_numpy(dtype=object)
        first = pd.Series(rows).groupby(values).transform("min").to_numpy()
        links.append(np.where(values == "", rows, first))
    ends = (np.tile(rows, len(links)), np.concatenate(links))
    graph = coo_array((np.ones(len(ends[0])), ends), shape=(count, count))
    labels = connected_components(graph, directed=False)[1]
    bundles: dict[int, list[int]] = {}
    for row, label in enumerate(labels.tolist()):
        bundles.setdefault(label, []).append(row)
    return list(bundles.values())


def has_official(table: ImagesTable) -> bool:
    """Tell whether the data set names sets of its own, usable or not."""
    return SET_COLUMN in table.frame and bool((table.frame[SET_COLUMN] != "").any())


def has_paper(table: ImagesTable) -> bool:
    """Tell whether MA-AGIQA has results on the data set, and so a split of it."""
    return table.source.startswith(PAPER_SOURCES)


def require_official(table: ImagesTable) -> None:
    """Refuse a data set without three official sides that have scores.

    Raises:
        AgiqaError: says which side is missing, and what to use instead.
    """
    scored = with_scores(table).frame
    instead = f"use --protocol grouped, random or paper, which split the {len(scored):,} images"
    if not has_official(table):
        raise AgiqaError(f"{table.name} has no official sets: {instead} themselves")
    named = {side: int((table.frame[SET_COLUMN] == side).sum()) for side in SIDES}
    usable = {side: int((scored[SET_COLUMN] == side).sum()) for side in SIDES}
    if absent := [side for side, count in named.items() if not count]:
        present = ", ".join(f"{side} {count:,}" for side, count in named.items() if count)
        raise AgiqaError(
            f"{table.name} has no official {' or '.join(absent)} side (found {present}): {instead} "
            "themselves, or import a split file that has all three (agiqa splits import)"
        )
    if silent := [side for side, count in usable.items() if not count]:
        sizes = " and ".join(f"{side} side ({named[side]:,} images)" for side in silent)
        raise AgiqaError(
            f"{table.name}: the scores of the official {sizes} are not public: {instead} that "
            "have scores"
        )


def deal_official(table: ImagesTable, seed: int, ratio: Ratio) -> Sides:
    """Give the official sides in table order; seed and ratio have no say."""
    sets = table.frame[SET_COLUMN].to_numpy()
    train, val, test = ([int(row) for row in (sets == side).nonzero()[0]] for side in SIDES)
    return train, val, test


# (table, seed, ratio) to row numbers for train, val and test.
PROTOCOLS: dict[str, Callable[[ImagesTable, int, Ratio], Sides]] = {
    "grouped": deal_grouped,
    "random": deal_random,
    "paper": deal_paper,
    "official": deal_official,
}
FIXED: Mapping[str, Sequence[int]] = {"paper": (20,), "official": (0,)}  # seeds of single splits


def make_splits(
    table: ImagesTable, protocol: str, *, count: int = 10, seed: int = 0, ratio: Ratio = RATIO
) -> pd.DataFrame:
    """Split the table `count` times, with seeds counting up from `seed`.

    `paper` and `official` are one fixed split each: they take no notice of `count`, `seed` and
    `ratio`. Images without a score (NaN in every target) are on no side.

    Returns:
        One row for each image and seed, in the order in which the protocol dealt them out: name
        (the image's path), image_id, seed, side (train, val, test), protocol.

    Raises:
        AgiqaError: an unknown protocol, or too few images, groups or official sides for it.
    """
    _require_possible(protocol, count, ratio)
    if protocol == "official":
        require_official(table)
    table = with_scores(table)
    if len(table.frame) < len(SIDES):
        raise AgiqaError(
            f"{table.name} has {len(table.frame)} images with a score, too few to train, validate "
            "and test: at least 3 are needed"
        )
    dealt: list[tuple[int, str, list[int]]] = []  # seed, side, row numbers
    for split_seed in FIXED.get(protocol, range(seed, seed + count)):
        sides = PROTOCOLS[protocol](table, split_seed, ratio)
        empty = [side for side, rows in zip(SIDES, sides, strict=True) if not rows]
        if empty and (ratio[1] > 0 or empty != ["val"]):
            raise AgiqaError(
                f"protocol {protocol} leaves no image to {' and '.join(empty)}: {table.name} has "
                f"{len(table.frame)} images with a score, too few for it"
            )
        dealt += [(split_seed, side, rows) for side, rows in zip(SIDES, sides, strict=True)]
    sizes = [len(rows) for _, _, rows in dealt]
    images = table.frame[["path", "image_id"]].iloc[[row for _, _, rows in dealt for row in rows]]
    return (
        images.set_axis(["name", "image_id"], axis=1)
        .assign(
            seed=np.repeat([split_seed for split_seed, _, _ in dealt], sizes),
            side=np.repeat([side for _, side, _ in dealt], sizes),
            protocol=protocol,
        )
        .reset_index(drop=True)[list(COLUMNS)]
    )


def _require_possible(protocol: str, count: int, ratio: Ratio) -> None:
    """Refuse an unknown protocol, shares that do not sum to 1, and a count below 1."""
    if protocol not in PROTOCOLS:
        raise AgiqaError(f"unknown protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}")
    if min(ratio) < 0 or ratio[0] * ratio[2] == 0 or abs(sum(ratio) - 1) > 1e-9:
        raise AgiqaError(
            f"split ratio {ratio}: expected three shares (train, val, test) that sum to 1, "
            "train and test above 0"
        )
    if count < 1:
        raise AgiqaError(f"split count {count}: expected at least 1")


def default_protocol(table: ImagesTable) -> str:
    """Choose `grouped` where the images carry more than two groups, else `random`."""
    return "grouped" if named_groups(with_scores(table)) > 2 else "random"
