"""The figures of many bootstrap resamples at once, from counts of how often images are drawn.

A resample of a test side is a row of whole numbers: how often each image was drawn. The figures of
`agiqa.data.metrics` are computed from those counts for all resamples together, without building
one:

* SRCC: mean ranks within the resample (copies of an image tie), then Pearson's;
* PLCC, RMSE and MAE, raw: weighted sums, one matrix product;
* PLCC and RMSE after the logistic: the curve that was fitted once to the test side stays, since a
  fit for each resample takes a thousand times as long and four parameters on hundreds of images
  hardly move; below LEAST_FOR_FITTED images they are not given, as in `agiqa.data.metrics`;
* KRCC: exact on up to EXACT images; beyond, as that is quadratic in the images, its linear part
  (Hájek's projection of the two counts under the root), whose interval is that of the
  infinitesimal jackknife.

`intervals` draws the counts.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from agiqa.data.metric_names import CORRELATIONS, FIGURES, LEAST_FOR_FITTED
from agiqa.data.metrics import fit_logistic

Array = NDArray[np.float64]

EXACT = 256  # images, of KRCC by all pairs
SPREAD = 1e-12  # of a resample's variance to the test side's; less is rounding of no spread at all
ROWS = 1024  # of a block of the pairs that KRCC compares


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
