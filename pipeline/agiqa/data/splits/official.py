"""Protocol `official`: the sets that the data set's makers published, such as KonIQ-10k's.

The images table carries them in its optional column `set` (train, val, test, or nothing). Where a
side is absent, or its scores were never published (AIGIQA-20K's val and test), there is no such
split, and the error says what to use.
"""

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.splits.deals import Ratio, Sides
from agiqa.data.splits.sides import SIDES, with_scores

SET = "set"


def has_official(table: ImagesTable) -> bool:
    """Whether the data set names sets of its own, usable or not."""
    return SET in table.frame and bool((table.frame[SET] != "").any())


def require_official(table: ImagesTable) -> None:
    """Refuse a data set without three official sides that have scores.

    Raises:
        AgiqaError: says which side is missing, and what to use instead.
    """
    scored = with_scores(table).frame
    instead = f"use --protocol grouped, random or paper, which split the {len(scored):,} images"
    if not has_official(table):
        raise AgiqaError(f"{table.name} has no official sets: {instead} themselves")
    named = {side: int((table.frame[SET] == side).sum()) for side in SIDES}
    usable = {side: int((scored[SET] == side).sum()) for side in SIDES}
    if absent := [side for side, count in named.items() if not count]:
        found = ", ".join(f"{side} {count:,}" for side, count in named.items() if count)
        raise AgiqaError(
            f"{table.name} has no official {' or '.join(absent)} side (found {found}): {instead} "
            "themselves, or import a split file that has all three (agiqa splits import)"
        )
    if silent := [side for side, count in usable.items() if not count]:
        sizes = " and ".join(f"{side} side ({named[side]:,} images)" for side in silent)
        raise AgiqaError(
            f"{table.name}: the scores of the official {sizes} are not public: {instead} that "
            "have scores"
        )


def deal_official(table: ImagesTable, seed: int, ratio: Ratio) -> Sides:
    """The official sides in table order; seed and ratio have no say."""
    sets = table.frame[SET].to_numpy()
    train, val, test = ([int(row) for row in (sets == side).nonzero()[0]] for side in SIDES)
    return train, val, test
