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
"""  # noqa: E501

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.splits.split_rules import (
    COLUMNS,
    SIDES,
    Ratio,
    Sides,
    deal_grouped,
    deal_official,
    deal_paper,
    deal_random,
    named_groups,
    require_official,
    with_scores,
)

RATIO = (0.7, 0.1, 0.2)
# (table, seed, ratio) to row numbers for train, val and test.
PROTOCOLS: dict[str, Callable[[ImagesTable, int, Ratio], Sides]] = {
    "grouped": deal_grouped,
    "random": deal_random,
    "paper": deal_paper,
    "official": deal_official,
}
FIXED: Mapping[str, Sequence[int]] = {"paper": (20,), "official": (0,)}  # seeds of single splits


def make_splits(
    table: ImagesTable,
    protocol: str,
    *,
    count: int = 10,
    seed: int = 0,
    ratio: Ratio = RATIO,
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
    if protocol not in PROTOCOLS:
        raise AgiqaError(f"unknown protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}")
    if min(ratio) < 0 or ratio[0] * ratio[2] == 0 or abs(sum(ratio) - 1) > 1e-9:
        raise AgiqaError(
            f"split ratio {ratio}: expected three shares (train, val, test) that sum to 1, "
            "train and test above 0"
        )
    if count < 1:
        raise AgiqaError(f"split count {count}: expected at least 1")
    if protocol == "official":
        require_official(table)
    table = with_scores(table)
    if len(table.frame) < len(SIDES):
        raise AgiqaError(
            f"{table.name} has {len(table.frame)} images with a score, too few to train, validate "
            "and test: at least 3 are needed"
        )
    seeds = FIXED.get(protocol, range(seed, seed + count))
    deal = PROTOCOLS[protocol]
    frames = []
    for split_seed in seeds:
        sides = deal(table, split_seed, ratio)
        empty = [side for side, rows in zip(SIDES, sides, strict=True) if not rows]
        if empty and (ratio[1] > 0 or empty != ["val"]):
            raise AgiqaError(
                f"protocol {protocol} leaves no image to {' and '.join(empty)}: {table.name} has "
                f"{len(table.frame)} images with a score, too few for it"
            )
        for side, rows in zip(SIDES, sides, strict=True):
            frame = table.frame.iloc[rows][["path", "image_id"]].rename(columns={"path": "name"})
            frames.append(frame.assign(seed=split_seed, side=side, protocol=protocol))
    return pd.concat(frames, ignore_index=True)[list(COLUMNS)]


def default_protocol(table: ImagesTable) -> str:
    """Choose `grouped` where the images carry more than two groups, else `random`."""
    return "grouped" if named_groups(with_scores(table)) > 2 else "random"
