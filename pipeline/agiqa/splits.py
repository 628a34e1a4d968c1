"""Splits as files: who trains, who selects, who is tested, by a named protocol, with its leaks.

| protocol | split |
|---|---|
| `grouped` | seeded 70/10/20; all images of a group (a prompt) stay on one side, and so do byte-identical files |
| `random` | seeded 70/10/20 by image |
| `paper` | MA-AGIQA's own: one split, `random.Random(20).shuffle(range(N))`, cut at int(0.7 N) and int(0.8 N) |

`random` and `paper` put images of one prompt on both sides; `leaks` counts them. Stage 2 reads the
files and nothing else decides which image is tested.
"""  # noqa: E501

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from agiqa.datasets.labels import read_text_csv, require_columns
from agiqa.datasets.table import ImagesTable, write_whole
from agiqa.errors import AgiqaError, some

SIDES = ("train", "val", "test")
COLUMNS = ("name", "image_id", "seed", "side", "protocol")
RATIO = (0.7, 0.1, 0.2)
PAPER_SEED = 20

Ratio = tuple[float, float, float]
Sides = tuple[list[int], list[int], list[int]]  # row numbers of the table: train, val, test


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


def make_splits(
    table: ImagesTable,
    protocol: str,
    *,
    count: int = 10,
    seed: int = 0,
    ratio: Ratio = RATIO,
) -> pd.DataFrame:
    """Split the table `count` times, with seeds counting up from `seed`.

    `paper` is one fixed split: it takes no notice of `count`, `seed` and `ratio`.

    Returns:
        One row for each image and seed, in the order in which the protocol dealt them out: name
        (the image's path), image_id, seed, side (train, val, test), protocol.

    Raises:
        AgiqaError: an unknown protocol, or too few images or groups for it.
    """
    if protocol not in PROTOCOLS:
        raise AgiqaError(f"unknown protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}")
    if min(ratio) < 0 or ratio[0] * ratio[2] == 0 or abs(sum(ratio) - 1) > 1e-9:
        raise AgiqaError(
            f"split ratio {ratio}: expected three shares (train, val, test) that sum to 1, "
            "train and test above 0"
        )
    if count < 1:
        raise AgiqaError(f"split count {count}: expected at least 1")
    if len(table.frame) < len(SIDES):
        raise AgiqaError(
            f"{table.name} has {len(table.frame)} images, too few to train, validate and test: "
            "at least 3 are needed"
        )
    seeds = [PAPER_SEED] if protocol == "paper" else range(seed, seed + count)
    deal = PROTOCOLS[protocol]
    parts = []
    for each in seeds:
        for side, chosen in zip(SIDES, deal(table, each, ratio), strict=True):
            part = table.frame.iloc[chosen][["path", "image_id"]].rename(columns={"path": "name"})
            parts.append(part.assign(seed=each, side=side, protocol=protocol))
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def default_protocol(table: ImagesTable) -> str:
    """`grouped` where the images carry more than two groups, else `random`."""
    return "grouped" if _named_groups(table) > 2 else "random"


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


def side_rows(
    splits: pd.DataFrame, table: ImagesTable
) -> dict[int, dict[str, npt.NDArray[np.intp]]]:
    """Row numbers of the table by seed and side, in the order of the split file.

    Raises:
        AgiqaError: the splits were made from another state of the data.
    """
    place = {
        key: row
        for row, key in enumerate(zip(table.frame["path"], table.frame["image_id"], strict=True))
    }
    keys = list(zip(splits["name"], splits["image_id"], strict=True))
    foreign = [name for name, file in keys if (name, file) not in place]
    if foreign:
        raise AgiqaError(
            f"the splits hold {len(foreign)} images that {table.name} has not, or has otherwise "
            f"({some(foreign, 3)}): run `agiqa prepare` again"
        )
    rows = np.array([place[key] for key in keys], dtype=np.intp)
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
    splits = read_text_csv(path)
    require_columns(splits, COLUMNS, path)
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


def write_leaks(found: Sequence[Leak], path: Path) -> None:
    """Write the leak counts as JSON, a list with one object for each split."""
    text = json.dumps([asdict(leak) for leak in found], indent=2) + "\n"
    write_whole(path, text.encode("utf-8"))


def _deal_grouped(table: ImagesTable, seed: int, ratio: Ratio) -> Sides:
    bundles = _bundles(table)
    named = _named_groups(table)
    if named < 3 or len(bundles) < 3:
        joined = "" if named < 3 else f", which byte-identical files join to {len(bundles)}"
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


def _deal_random(table: ImagesTable, seed: int, ratio: Ratio) -> Sides:
    order = list(range(len(table.frame)))
    random.Random(seed).shuffle(order)
    ends = np.arange(1, len(order) + 1)
    first = _cut(ends, ratio[0], 1, len(order) - 1 - (ratio[1] > 0))
    second = first
    if ratio[1] > 0:
        second = _cut(ends, ratio[0] + ratio[1], first + 1, len(order) - 1)
    return order[:first], order[first:second], order[second:]


def _deal_paper(table: ImagesTable, seed: int, ratio: Ratio) -> Sides:
    order = list(range(len(table.frame)))
    random.Random(seed).shuffle(order)
    first, second = int(0.7 * len(order)), int(0.8 * len(order))
    return order[:first], order[first:second], order[second:]


def _named_groups(table: ImagesTable) -> int:
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


# (table, seed, ratio) to row numbers for train, val and test.
PROTOCOLS: dict[str, Callable[[ImagesTable, int, Ratio], Sides]] = {
    "grouped": _deal_grouped,
    "random": _deal_random,
    "paper": _deal_paper,
}
