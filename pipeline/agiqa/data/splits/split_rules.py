"""Rules that deal images out to train, val and test, and the images that can be dealt.

`deal_…` take a table of images that all have a score, a seed and the ratio, and give row numbers:
by group, one by one, as MA-AGIQA's authors do, or as the data set's makers published (KonIQ-10k's
column `set`). Official sides that are absent, or whose scores were never published (AIGIQA-20K's
val and test), make no split, and the error says what to use.
"""

import random
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

Ratio = tuple[float, float, float]
Sides = tuple[list[int], list[int], list[int]]  # row numbers of the table: train, val, test


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
