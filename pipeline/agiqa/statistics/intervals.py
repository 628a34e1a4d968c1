"""95 % bootstrap intervals for figures of one split and for their median over splits.

**What varies.** A data set is a sample: of prompts (groups), each with several images, and of
images where no groups are known. A new data set would have other prompts, so whole groups are drawn
with replacement, not single images: the ten images of a prompt share its difficulty, and drawing
them one by one would give intervals that are too narrow. With fewer than LEAST_GROUPS groups, or
groups unknown, images are drawn, and the result says so.

**Over splits.** Ten test sides of one data set overlap, and so do the models' training sides: ten
values are not ten independent ones, and sd/√10 would be a lie. Therefore each resample draws groups
**once, for all splits** (a group that was drawn twice counts twice on every test side that has it)
and then draws the splits themselves with replacement, which lets the spread between trained models
in. The second step repeats a part of the first one's variance, so the interval errs to the wide
side: simulated with known truth (300 data sets each of 60 or 300 prompts), 95 to 96 % are covered
by one split, 97 to 100 % by the median of five or ten.

**What does not vary.** Models are not fitted again, and nobody's raters are asked again: the
interval is for this MOS, from models trained on this data set's splits. With a single split (paper,
official) it says nothing of other training sides.

Percentile intervals: the resamples' own 2.5th and 97.5th percentiles (Efron and Tibshirani, "An
Introduction to the Bootstrap", 1993, chapter 13), for groups Davison and Hinkley, "Bootstrap
Methods and their Application", 1997, section 3.8.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from agiqa.statistics.resampling import FIGURES, TestSide, drawn_counts, resampled, test_side

Array = NDArray[np.float64]

RESAMPLES = 1000
LEVEL = 0.95
LEAST_GROUPS = 20  # of a test side; below, images are drawn
BLOCK = 100  # resamples at a time: 100 x 4,000 counts are 3 MiB
SEED = 0


@dataclass(frozen=True)
class Drawn:
    """One draw of groups for all splits: how often, by split, each test image counts."""

    unit: str  # what was drawn: groups or images
    units: tuple[NDArray[np.intp], ...]  # by split, the unit of each test image
    count: int  # of units
    splits: NDArray[np.intp]  # (B, S): which splits each resample holds

    def blocks(self) -> "Sequence[NDArray[np.uint16]]":
        """Counts of units `(b, U)`, block after block, the same at every call."""
        rng = np.random.default_rng(SEED)
        share = np.full(self.count, 1 / self.count)
        return [
            rng.multinomial(self.count, share, size=min(BLOCK, len(self.splits) - start)).astype(
                np.uint16
            )
            for start in range(0, len(self.splits), BLOCK)
        ]


def draw(sides: Sequence[pd.DataFrame], resamples: int = RESAMPLES) -> Drawn:
    """Draw groups, or images, for test sides with the columns `path` and `group`.

    Every model and every run on the same test sides gets the same draw, so differences are paired.
    """
    every = pd.concat(list(sides), ignore_index=True)
    grouped = min((side["group"].replace("", np.nan).nunique() for side in sides), default=0)
    unit = "groups" if grouped >= LEAST_GROUPS else "images"
    named = every["group"].where(every["group"] != "", every["path"]) if unit == "groups" else (
        every["path"]
    )  # fmt: skip
    # Sorted, so that the order of rows in a file has no say.
    codes, units = pd.factorize(named, sort=True)
    ends = np.cumsum([len(side) for side in sides])[:-1]
    rng = np.random.default_rng(SEED + 1)
    splits = rng.integers(0, len(sides), size=(resamples, len(sides)))
    return Drawn(unit, tuple(np.split(codes.astype(np.intp), ends)), len(units), splits)


def resample_splits(drawn: Drawn, models: Sequence[Sequence[TestSide]]) -> list[dict[str, Array]]:
    """For each model the figures of every resample of every split `(S, B)`, by figure.

    All models get the same resamples, on the same test sides: `models[m][s]`.
    """
    shape = (len(drawn.units), len(drawn.splits))
    found = [{figure: np.empty(shape) for figure in FIGURES} for _ in models]
    start = 0
    with threadpool_limits(limits=1, user_api="blas"):  # the products are narrow: threads only wait
        for block in drawn.blocks():
            rows = slice(start, start + len(block))
            for split, units in enumerate(drawn.units):
                counts = drawn_counts(block[:, units].astype(np.float64), models[0][split].mos)
                for values, sides in zip(found, models, strict=True):
                    for figure, resamples in resampled(sides[split], counts).items():
                        values[figure][split, rows] = resamples
            start += len(block)
    return found


def over_splits(values: Array, drawn: Drawn) -> Array:
    """Of resamples by split `(S, B)`, the median over splits that were drawn again `(B,)`."""
    chosen = np.take_along_axis(values.T, drawn.splits, axis=1)
    return np.asarray(np.median(chosen, axis=1))


def percentile_interval(values: Array) -> tuple[float, float]:
    """The middle 95 % of resamples `(B,)`; NaN where more than one in twenty is not defined."""
    finite = values[np.isfinite(values)]
    if len(finite) < LEVEL * len(values) or not len(finite):
        return math.nan, math.nan
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Intervals:
    """By figure: of the median over splits, and of each split."""

    unit: str
    median: Mapping[str, tuple[float, float]]
    splits: tuple[Mapping[str, tuple[float, float]], ...]


def model_intervals(
    models: Mapping[str, Sequence[pd.DataFrame]], resamples: int = RESAMPLES
) -> dict[str, Intervals]:
    """95 % intervals of models that were tested on the same sides.

    Args:
        models: for each, by split, its test side with the columns path, group, mos and score; the
            same images in the same order for all.
        resamples: how many.
    """
    drawn = draw(next(iter(models.values())), resamples)
    usable = {name: sides for name, sides in models.items() if all(map(_finite, sides))}
    found = resample_splits(
        drawn,
        [
            [
                test_side(side["mos"].to_numpy(float), side["score"].to_numpy(float))
                for side in sides
            ]
            for sides in usable.values()
        ],
    )
    undefined = dict.fromkeys(FIGURES, (math.nan, math.nan))
    intervals = {
        name: Intervals(drawn.unit, undefined, (undefined,) * len(sides))
        for name, sides in models.items()
    }
    for name, values in zip(usable, found, strict=True):
        intervals[name] = Intervals(
            drawn.unit,
            {f: percentile_interval(over_splits(values[f], drawn)) for f in FIGURES},
            tuple(
                {f: percentile_interval(values[f][split]) for f in FIGURES}
                for split in range(len(drawn.units))
            ),
        )
    return intervals


def _finite(side: pd.DataFrame) -> bool:
    return len(side) > 1 and bool(np.isfinite(side[["mos", "score"]].to_numpy(float)).all())
