"""Images dealt out to train, val and test: by group, one by one, or as MA-AGIQA's authors do.

Each takes a table of images that all have a score, a seed and the ratio, and gives row numbers.
"""

import random

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable

Ratio = tuple[float, float, float]
Sides = tuple[list[int], list[int], list[int]]  # row numbers of the table: train, val, test


def deal_grouped(table: ImagesTable, seed: int, ratio: Ratio) -> Sides:
    """Groups one by one, in a seeded order, to the cuts that come nearest to the ratio.

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
    random.Random(seed).shuffle(bundles)
    ends = np.cumsum([len(bundle) for bundle in bundles])
    first = _cut(ends, ratio[0], 1, len(bundles) - 1 - (ratio[1] > 0))
    second = first
    if ratio[1] > 0:
        second = _cut(ends, ratio[0] + ratio[1], first + 1, len(bundles) - 1)
    parts = (bundles[:first], bundles[first:second], bundles[second:])
    train, val, test = ([row for bundle in part for row in bundle] for part in parts)
    return train, val, test


def _cut(ends: npt.NDArray[np.int_], share: float, low: int, high: int) -> int:
    """How many bundles come nearest to the share of all images, between low and high."""
    nearest = int(np.argmin(np.abs(ends - share * ends[-1]))) + 1
    return min(max(nearest, low), high)


def deal_random(table: ImagesTable, seed: int, ratio: Ratio) -> Sides:
    """Images one by one, in a seeded order."""
    order = list(range(len(table.frame)))
    random.Random(seed).shuffle(order)
    ends = np.arange(1, len(order) + 1)
    first = _cut(ends, ratio[0], 1, len(order) - 1 - (ratio[1] > 0))
    second = first
    if ratio[1] > 0:
        second = _cut(ends, ratio[0] + ratio[1], first + 1, len(order) - 1)
    return order[:first], order[first:second], order[second:]


def deal_paper(table: ImagesTable, seed: int, ratio: Ratio) -> Sides:
    """MA-AGIQA's own cuts, whatever the ratio; nothing is rounded to the nearest."""
    order = list(range(len(table.frame)))
    random.Random(seed).shuffle(order)
    first, second = int(0.7 * len(order)), int(0.8 * len(order))
    return order[:first], order[first:second], order[second:]


def named_groups(table: ImagesTable) -> int:
    """How many groups the images name."""
    return len(set(table.frame["group"]) - {""})


def _bundles(table: ImagesTable) -> list[list[int]]:
    """Rows that must stay together, connected by a shared group or file, in table order."""
    count = len(table.frame)
    rows = np.arange(count)
    links = []  # for each row, the first row with the same value
    for column in ("group", "image_id"):
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
