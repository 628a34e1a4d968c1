"""95 % bootstrap intervals for figures of one split and for their median over splits.

**What varies.** A data set is a sample: of prompts (groups), each with several images, and of
images where no groups are known. A new data set would have other prompts, so whole groups are drawn
with replacement, not single images: the ten images of a prompt share its difficulty, and drawing
them one by one would give intervals that are too narrow. Only where no image has a group are images
drawn. A side of fewer than LEAST_UNITS of what is drawn has no interval, and the result says so.

**One split.** From MANY_UNITS on, percentile intervals: the resamples' own 2.5th and 97.5th
percentiles (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13; for groups
Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8). Of fewer units U
these are too narrow, as a variance that divides by U is; so there the resamples give a standard
error alone, on a scale on which figures are about normal (Fisher's z = artanh for correlations, the
logarithm for errors), times √(U/(U − 1)), with Student's t of U − 1 degrees about the figure
itself. Both ends stay inside the statistic's range. BCa and widened percentiles were no better in
the simulations of `benchmarks/intervals.py`, whose figures stand in docs/protocols.md.

**Over splits.** Ten test sides of one data set overlap, and so do the models' training sides: ten
values are not ten independent ones, and sd/√10 would be a lie. Therefore each resample draws groups
**once, for all splits** (a group that was drawn twice counts twice on every test side that has it)
and then draws the splits themselves with replacement, which lets the spread between trained models
in. The second step repeats a part of the first one's variance, so percentiles err to the wide side
here, however few the groups.

**Figures of resamples.** A resample of a test side is a row of whole numbers: how often each image
was drawn. The figures of `agiqa.data.metrics` are computed from those counts for all resamples
together, without building one:

* SRCC: mean ranks within the resample (copies of an image tie), then Pearson's;
* PLCC, RMSE and MAE, raw: weighted sums, one matrix product;
* PLCC and RMSE after the logistic: the curve that was fitted once to the test side stays, since a
  fit for each resample takes a thousand times as long and four parameters on hundreds of images
  hardly move; below LEAST_FOR_FITTED images they are not given, as in `agiqa.data.metrics`;
* KRCC: exact on up to EXACT images; beyond, as that is quadratic in the images, its linear part
  (Hájek's projection of the two counts under the root), whose interval is that of the
  infinitesimal jackknife.

**What does not vary.** Models are not fitted again, and nobody's raters are asked again: the
interval is for this MOS, from models trained on this data set's splits. With a single split (paper,
official) it says nothing of other training sides.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata
from scipy.stats import t as student
from threadpoolctl import threadpool_limits

from agiqa.data.metric_names import CORRELATIONS, FIGURES, LEAST_FOR_FITTED
from agiqa.data.metrics import fit_logistic, why_undefined

Array = NDArray[np.float64]

RESAMPLES = 1000
LEVEL = 0.95
LEAST_UNITS = 5  # groups, or images, of a test side that has intervals
MANY_UNITS = 50  # of a single test side whose intervals are percentiles
NO_SPREAD = 1e-9  # of resamples on Fisher's scale; less is rounding
ONE = 1 - 1e-9  # a correlation of 1 on Fisher's scale, where it would be infinite
BLOCK = 100  # resamples at a time: 100 x 4,000 counts are 3 MiB
SEED = 0
EXACT = 256  # images, of KRCC by all pairs
SPREAD = 1e-12  # of a resample's variance to the test side's; less is rounding of no spread at all
ROWS = 1024  # of a block of the pairs that KRCC compares

Bounds = tuple[float, float]
UNDEFINED: Bounds = (math.nan, math.nan)


@dataclass(frozen=True)
class TestSide:
    """One model's scores on one test side, with what all its resamples share."""

    __test__ = False  # no test of pytest's

    mos: Array  # (n,)
    score: Array  # (n,)
    mapped: Array  # (n,), the scores after the logistic; NaN of too few images
    kendall: tuple[Array, Array, Array]  # of all pairs (n, n), or their means by image (n,)


def measured_side(mos: Array, score: Array) -> TestSide:
    """Prepare `(n,)` scores against their MOS; both finite, n at least 2."""
    few = len(mos) < LEAST_FOR_FITTED
    mapped = np.full(len(mos), np.nan) if few else fit_logistic(mos, score)
    if len(mos) <= EXACT:  # for each pair the product of both signs, and which side differs
        x, y = (np.sign(values[:, None] - values[None, :]) for values in (mos, score))
        return TestSide(mos, score, mapped, (x * y, np.abs(x), np.abs(y)))
    return TestSide(mos, score, mapped, _kendall_parts(mos, score))


@dataclass(frozen=True)
class DrawnCounts:
    """Counts of a test side's images, with what every model that is measured on that side shares.

    Rows may differ in their sums: groups of unequal size were drawn.
    """

    counts: Array  # (B, n): how often each image was drawn
    mos: Array  # (n,)

    @cached_property
    def mos_ranks(self) -> Array:
        """Rank the MOS in each resample `(B, n)`, less the mean rank."""
        return _ranks(self.mos, self.counts)


def resampled(side: TestSide, drawn: DrawnCounts) -> dict[str, Array]:
    """Compute figures of B resamples `(B,)`; NaN where one holds a single image or value."""
    mos, score, mapped = (values - values.mean() for values in (side.mos, side.score, side.mapped))
    raw, fitted = side.score - side.mos, side.mapped - side.mos
    columns = (np.ones_like(mos), mos, mos * mos, score, score * score, mos * score,
               mapped, mapped * mapped, mos * mapped, raw * raw, np.abs(raw),
               fitted * fitted)  # fmt: skip
    sums = (drawn.counts @ np.stack(columns, axis=1)).T
    n, x, xx, y, yy, xy, z, zz, xz, squares, absolute, fitted_squares = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        mos_spread = _spread(n, x, xx, mos)
        figures = {
            "srcc": _weighted_srcc(drawn, side.score),
            "krcc": _krcc(side.kendall, drawn.counts, n),
            "plcc": (n * xy - x * y) / np.sqrt(mos_spread * _spread(n, y, yy, score)),
            "rmse_raw": np.sqrt(squares / n),
            "mae": absolute / n,
            "plcc_logistic": (n * xz - x * z) / np.sqrt(mos_spread * _spread(n, z, zz, mapped)),
            "rmse": np.sqrt(fitted_squares / n),
        }
    # Rounding, and KRCC's linear part, reach beyond ±1.
    clipped = {name: np.clip(figures[name], -1.0, 1.0) for name in CORRELATIONS}
    return {name: (figures | clipped)[name] for name in FIGURES}


def _spread(n: Array, total: Array, squares: Array, values: Array) -> Array:
    """Compute n² times the variance of `values` by resample `(B,)`; NaN where all are equal."""
    spread = n * squares - total**2
    return np.where(spread > SPREAD * n**2 * np.mean(values**2), spread, np.nan)


def _weighted_srcc(drawn: DrawnCounts, score: Array) -> Array:
    ranks = _ranks(score, drawn.counts)
    mos = drawn.counts * drawn.mos_ranks
    covariance = np.einsum("bn,bn->b", mos, ranks)
    mos_spread = np.einsum("bn,bn->b", mos, drawn.mos_ranks)
    spread = np.einsum("bn,bn,bn->b", drawn.counts, ranks, ranks)
    return np.asarray(covariance / np.sqrt(mos_spread * spread))


def _ranks(values: Array, counts: Array) -> Array:
    """Rank each image's value among all drawn, ties at their mean, less the mean `(B, n)`."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    drawn = counts[:, order]
    if len(first) < len(values):
        drawn = np.add.reduceat(drawn, first, axis=1)  # of each distinct value
    rank = np.cumsum(drawn, axis=1)
    middle = (rank[:, -1:] + 1) / 2
    rank -= (drawn - 1) / 2 + middle
    value_index = np.empty(len(values), dtype=np.intp)
    value_index[order] = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(values)]))
    return np.asarray(np.take(rank, value_index, axis=1))


def _kendall_parts(mos: Array, score: Array) -> tuple[Array, Array, Array]:
    """Average over the other images sign·sign, and both signs squared, for each image."""
    x, y = rankdata(mos).astype(np.float32), rankdata(score).astype(np.float32)
    n = len(x)
    agree = np.empty(n)
    for start in range(0, n, ROWS):
        block = slice(start, start + ROWS)
        signs = np.sign(x[block, None] - x[None, :])
        agree[block] = np.einsum("ij,ij->i", signs, np.sign(y[block, None] - y[None, :]))
    return agree / (n - 1), _differing(x) / (n - 1), _differing(y) / (n - 1)


def _differing(ranks: NDArray[np.float32]) -> Array:
    """Count for each image how many others have another value."""
    _, value_index, same = np.unique(ranks, return_inverse=True, return_counts=True)
    return np.asarray(len(ranks) - same[value_index], dtype=np.float64)


def _krcc(kendall: tuple[Array, Array, Array], counts: Array, total: Array) -> Array:
    """Compute tau-b of each resample; of many images with its three mean counts linear.

    That is, replaced by 2·(their mean in the resample) − (their mean on the test side).
    """
    if kendall[0].ndim == 2:
        agree, *differ = (np.einsum("bn,bn->b", counts @ pairs, counts) for pairs in kendall)
    else:
        means = np.stack(kendall, axis=1)  # (n, 3)
        agree, *differ = (2 * (counts @ means).T / total) - means.mean(0)[:, None]
    return np.asarray(agree / np.sqrt(differ[0] * differ[1]))


@dataclass(frozen=True)
class Drawn:
    """One draw of groups for all splits: how often, by split, each test image counts."""

    unit: str  # what was drawn: groups or images
    units: tuple[NDArray[np.intp], ...]  # by split, the unit of each test image
    count: int  # of units
    splits: NDArray[np.intp]  # (B, S): which splits each resample holds

    @property
    def sizes(self) -> list[int]:
        """How many units each test side holds."""
        return [len(np.unique(units)) for units in self.units]

    @property
    def rests_on(self) -> int:
        """Units that decide how an interval over all splits is made; draws of splits widen it."""
        return self.sizes[0] if len(self.units) == 1 else MANY_UNITS

    @property
    def too_few(self) -> str:
        """Why there are no intervals, in one line; empty where there are."""
        least = min(self.sizes, default=0)
        if least >= LEAST_UNITS:
            return ""
        unit = self.unit.removesuffix("s") if least == 1 else self.unit
        return f"{least} {unit} on a test side; intervals need {LEAST_UNITS}"

    def blocks(self) -> "Sequence[NDArray[np.uint16]]":
        """Draw counts of units `(b, U)`, block after block, the same at every call."""
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

    An image without a group, among others that have one, is a group of its own.

    Every model and every run on the same test sides gets the same draw, so differences are paired.
    """
    images = pd.concat(list(sides), ignore_index=True)
    unit = "groups" if (images["group"] != "").any() else "images"
    named = images["group"].where(images["group"] != "", images["path"])
    # Sorted, so that the order of rows in a file has no say.
    codes, units = pd.factorize(named, sort=True)
    ends = np.cumsum([len(side) for side in sides])[:-1]
    rng = np.random.default_rng(SEED + 1)
    splits = rng.integers(0, len(sides), size=(resamples, len(sides)))
    return Drawn(unit, tuple(np.split(codes.astype(np.intp), ends)), len(units), splits)


def resample_splits(drawn: Drawn, models: Sequence[Sequence[TestSide]]) -> list[dict[str, Array]]:
    """Compute for each model all resamples' figures of every split `(S, B)`, by figure.

    All models get the same resamples, on the same test sides: `models[m][s]`.
    """
    shape = (len(drawn.units), len(drawn.splits))
    figures_of = [{figure: np.empty(shape) for figure in FIGURES} for _ in models]
    start = 0
    with threadpool_limits(limits=1, user_api="blas"):  # the products are narrow: threads only wait
        for block in drawn.blocks():
            rows = slice(start, start + len(block))
            for split, units in enumerate(drawn.units):
                counts = DrawnCounts(block[:, units].astype(np.float64), models[0][split].mos)
                for values, sides in zip(figures_of, models, strict=True):
                    for figure, resamples in resampled(sides[split], counts).items():
                        values[figure][split, rows] = resamples
            start += len(block)
    return figures_of


def over_splits(values: Array, drawn: Drawn) -> Array:
    """Reduce resamples by split `(S, B)` to the median over splits drawn again `(B,)`."""
    drawn_values = np.take_along_axis(values.T, drawn.splits, axis=1)
    return np.asarray(np.median(drawn_values, axis=1))


def percentile_interval(values: Array) -> Bounds:
    """Give the middle 95 % of resamples `(B,)`; NaN where over one in twenty is undefined."""
    finite = values[np.isfinite(values)]
    if len(finite) < LEVEL * len(values) or not len(finite):
        return UNDEFINED
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def side_interval(values: Array, value: float, units: int, figure: str = "") -> Bounds:
    """Give the interval of one test side's figure, or of a difference of two.

    Args:
        values: the figure of each resample `(B,)`.
        value: the figure itself.
        units: groups, or images, that the side holds.
        figure: its name, for its scale; empty for a difference.

    Returns:
        NaN where the figure or more than one resample in twenty is not defined, and where all
        resamples of a correlation are alike (as of five images in the right order): that says
        nothing of other images.
    """
    if units >= MANY_UNITS:
        return percentile_interval(values) if math.isfinite(value) else UNDEFINED
    centre, error = _centre_and_error(values, value, units, figure)
    if not math.isfinite(error) or (error < NO_SPREAD and figure in CORRELATIONS):
        return UNDEFINED
    reach = float(student.ppf((1 + LEVEL) / 2, units - 1)) * error
    low, high = (_from_scale(figure, end) for end in (centre - reach, centre + reach))
    return low, high


def p_of_no_difference(values: Array, value: float, units: int) -> float:
    """Give the two-sided p of a difference with these resamples, as by `side_interval`.

    Never 0: B resamples say no more than that it is below 2/B.
    """
    if not math.isfinite(side_interval(values, value, units)[0]):
        return math.nan
    if units < MANY_UNITS:
        _, error = _centre_and_error(values, value, units, "")
        if error == 0:
            return 1.0 if value == 0 else 2 / len(values)
        return max(2 * float(student.sf(abs(value) / error, units - 1)), 2 / len(values))
    finite = values[np.isfinite(values)]
    tail = min(float(np.mean(finite <= 0)), float(np.mean(finite >= 0)))
    return min(1.0, 2 * max(tail, 1 / len(values)))


def _centre_and_error(values: Array, value: float, units: int, figure: str) -> tuple[float, float]:
    """Scale a figure, with its standard error there; NaN where it is not defined."""
    finite = values[np.isfinite(values)]
    if not math.isfinite(value) or len(finite) < LEVEL * len(values) or units < 2:
        return math.nan, math.nan
    error = float(_to_scale(figure, finite).std()) * math.sqrt(units / (units - 1))
    return float(_to_scale(figure, np.array(value))), error


def _to_scale(figure: str, values: Array) -> Array:
    if figure in CORRELATIONS:
        return np.asarray(np.arctanh(np.clip(values, -ONE, ONE)))
    return np.asarray(np.log(np.maximum(values, np.finfo(float).tiny))) if figure else values


def _from_scale(figure: str, value: float) -> float:
    if figure in CORRELATIONS:
        return math.tanh(value)
    return math.exp(value) if figure else value


@dataclass(frozen=True)
class Intervals:
    """By figure: of the median over splits, and of each split; why a figure or interval lacks."""

    median: Mapping[str, Bounds]
    splits: tuple[Mapping[str, Bounds], ...]
    why: Mapping[str, str]  # of the median, or of its interval
    why_splits: tuple[Mapping[str, str], ...]


def model_intervals(
    models: Mapping[str, Sequence[pd.DataFrame]],
    figures: Mapping[str, Sequence[Mapping[str, float]]],
    drawn: Drawn,
) -> dict[str, Intervals]:
    """Compute 95 % intervals of models that were tested on the same sides.

    A side has the columns path, group, mos and score, the same images in the same order for all;
    figures are what `all_metrics` says of it; `drawn` is of those sides, by `draw`.
    """
    arrays = {
        name: [(side["mos"].to_numpy(float), side["score"].to_numpy(float)) for side in sides]
        for name, sides in models.items()
    }
    usable = [name for name, sides in arrays.items() if all(map(_finite, sides))]
    values: dict[str, dict[str, Array]] = {}
    if usable and not drawn.too_few:
        sides = [[measured_side(*side) for side in arrays[name]] for name in usable]
        values = dict(zip(usable, resample_splits(drawn, sides), strict=True))
    return {
        name: _intervals(arrays[name], figures[name], values.get(name), drawn) for name in models
    }


Side = tuple[Array, Array]  # MOS and scores (n,)


def _intervals(
    sides: Sequence[Side],
    figures: Sequence[Mapping[str, float]],
    values: Mapping[str, Array] | None,
    drawn: Drawn,
) -> Intervals:
    """Make one model's intervals from its resamples `(S, B)` by figure; None without any."""
    none = drawn.too_few or (NO_NUMBER if values is None else ALIKE)
    missing = [
        why_undefined(*side, {name: row[name] for name in FIGURES})
        for side, row in zip(sides, figures, strict=True)
    ]
    by_split: list[dict[str, Bounds]] = []
    for split, (row, units) in enumerate(zip(figures, drawn.sizes, strict=True)):
        bounds = dict.fromkeys(FIGURES, UNDEFINED)
        if values is not None:
            for name in FIGURES:
                bounds[name] = side_interval(values[name][split], row[name], units, name)
        by_split.append(bounds)
    why_splits = tuple(
        _why(bounds, reasons, none) for bounds, reasons in zip(by_split, missing, strict=True)
    )
    if len(sides) == 1:
        return Intervals(by_split[0], tuple(by_split), why_splits[0], why_splits)
    median, why_median = dict.fromkeys(FIGURES, UNDEFINED), dict[str, str]()
    for name in FIGURES:
        if in_splits := [why[name] for why in missing if name in why]:
            share = f" in {len(in_splits)} of {len(sides)} splits"
            why_median[name] = in_splits[0] + ("" if len(in_splits) == len(sides) else share)
        elif values is not None:
            median[name] = percentile_interval(over_splits(values[name], drawn))
    return Intervals(median, tuple(by_split), _why(median, why_median, none), why_splits)


def _why(bounds: Mapping[str, Bounds], reasons: Mapping[str, str], none: str) -> dict[str, str]:
    """Say why figures have no value, by their `reasons`, or no interval."""
    return {
        name: reasons.get(name) or none
        for name in FIGURES
        if name in reasons or not math.isfinite(bounds[name][0])
    }


ALIKE = "too many resamples hold the same images, or differ in nothing"
NO_NUMBER = "a score or target of another split is not a number"


def _finite(side: Side) -> bool:
    return len(side[0]) > 1 and bool(np.isfinite(side).all())
