"""What the sides of a split share: prompts, byte-identical files, near-identical pictures.

Near-identical means: another file whose perceptual hash differs in at most NEAR of 64 bits. On
AGIQA-3K re-encoding, scaling, blur and a change of the aspect ratio cost at most 2 bits, cutting
2 % off the edges or a fifth more brightness at most 6 in 99 % of images; two different pictures
are never nearer than 8. Only rows and sides matter here, so any split can be audited.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice, pairwise, product

import numpy as np
import numpy.typing as npt
import pandas as pd

from agiqa.data.datasets.groups import Relatives, Rows, prompt_groups
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.leak_audit.perceptual import NearHashes
from agiqa.data.splits.files import side_rows
from agiqa.data.splits.protocols import SIDES

SEEN = "train and val"  # what a released training side holds before validation is taken out of it
BETWEEN = (("test", "train"), ("val", "train"), ("test", "val"), ("test", SEEN))
MOST_LISTED = 20_000  # pairs of images looked at for the worst ones, nearest first


@dataclass(frozen=True)
class SideOverlap:
    """How many images of one side have a relative on another side of the same split."""

    protocol: str
    seed: int
    side: str  # whose images are counted
    other: str  # where their relatives stand
    images: int  # on the side
    same_prompt: int
    same_group: int  # as same_prompt where groups are prompts
    same_file: int
    near: int  # another file, a nearly identical picture


@dataclass(frozen=True)
class Pair:
    """Two images that show the same, and how often they stood on test and train of one split."""

    one: str
    other: str
    distance: int  # bits of 64 that differ
    same_file: bool
    same_prompt: bool
    splits: int
    scores: tuple[float, float] | None  # in the first target


@dataclass(frozen=True)
class Audit:
    """What was found in the splits of one protocol."""

    across: tuple[SideOverlap, ...]
    pairs: tuple[Pair, ...]  # of files or near pictures between test and train, nearest first


def audit(table: ImagesTable, splits: pd.DataFrame, near: NearHashes, *, pairs: int = 10) -> Audit:
    """Look for relatives across the sides of every split of one protocol, and name the worst pairs.

    `near` says which images' hashes are: `near_hashes(perceptual_hashes(table), NEAR)`.
    """
    relatives = Relatives(table.frame)
    files = np.array(pd.factorize(table.frame["image_id"])[0], dtype=np.intp)
    protocol = str(splits["protocol"].iloc[0])
    sides = {
        seed: rows | {SEEN: np.concatenate([rows["train"], rows["val"]])}
        for seed, rows in side_rows(splits, table).items()
    }
    across = [
        SideOverlap(
            protocol,
            seed,
            side,
            other_side,
            images=len(rows[side]),
            **relatives.counts(rows[side], rows[other_side]),
            near=int(_near(near, files, rows[side], rows[other_side]).sum()),
        )
        for seed, rows in sides.items()
        for side, other_side in BETWEEN
    ]
    side_codes = np.full((len(sides), len(table.frame)), -1, dtype=np.int8)
    for number, rows in enumerate(sides.values()):
        for code, side in enumerate(SIDES):
            side_codes[number, rows[side]] = code
    return Audit(tuple(across), _worst(table, near, files, side_codes, pairs))


def _near(near: NearHashes, files: Rows, rows: Rows, other_rows: Rows) -> npt.NDArray[np.bool_]:
    """Tell for each of `rows` whether `other_rows` have another file with a near hash."""
    count = int(near.row.max()) + 1
    present = np.zeros(count, dtype=bool)
    present[near.row[other_rows]] = True
    reached = np.zeros(count, dtype=bool)  # hashes with a near but different one there
    reached[near.first[present[near.second]]] = True
    reached[near.second[present[near.first]]] = True
    low, high = np.full(count, len(files)), np.full(count, -1)  # of the files there with this hash
    np.minimum.at(low, near.row[other_rows], files[other_rows])
    np.maximum.at(high, near.row[other_rows], files[other_rows])
    hashes, own_files = near.row[rows], files[rows]
    alike = present[hashes] & ((low[hashes] != own_files) | (high[hashes] != own_files))
    return np.asarray(reached[hashes] | alike)


def _worst(
    table: ImagesTable,
    near: NearHashes,
    files: Rows,
    side_codes: npt.NDArray[np.int8],
    most_pairs: int,
) -> tuple[Pair, ...]:
    """List the nearest pairs that stand on test and train of some split; most splits first."""
    listed = list(islice(_related(near), MOST_LISTED))
    if not listed:
        return ()
    first, second, distance = (np.array(column) for column in zip(*listed, strict=True))
    test, train = (side_codes == SIDES.index(side) for side in ("test", "train"))
    splits = (test[:, first] & train[:, second] | train[:, first] & test[:, second]).sum(axis=0)
    # Equal hashes of other files come after equal files: 0 bits differ in both.
    rank = np.lexsort((-splits, files[first] != files[second], distance))
    target = table.targets[0].name if table.targets else ""
    names = table.frame["path"].to_numpy()
    prompts = prompt_groups(table.frame["prompt"]).to_numpy(dtype=object)
    scores = table.frame[target].to_numpy(dtype=float) if target else None
    return tuple(
        Pair(
            str(names[first[k]]),
            str(names[second[k]]),
            int(distance[k]),
            bool(files[first[k]] == files[second[k]]),
            bool(prompts[first[k]] == prompts[second[k]] != ""),
            int(splits[k]),
            None if scores is None else (float(scores[first[k]]), float(scores[second[k]])),
        )
        for k in rank
        if splits[k]
    )[:most_pairs]


def _related(near: NearHashes) -> Iterator[tuple[int, int, int]]:
    """Yield pairs of rows with equal hashes, then with near ones by distance: rows, bits."""
    order = np.argsort(near.row, kind="stable")
    starts = np.searchsorted(near.row[order], np.arange(near.row.max() + 2))
    members = [order[a:b] for a, b in pairwise(starts)]
    for rows in members:
        if len(rows) > 1:
            for first, second in combinations(rows.tolist(), 2):
                yield first, second, 0
    for k in np.argsort(near.distance, kind="stable"):
        for first, second in product(members[near.first[k]], members[near.second[k]]):
            yield int(first), int(second), int(near.distance[k])
