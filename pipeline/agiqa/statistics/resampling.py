"""The five figures of many bootstrap resamples at once, from counts of how often images are drawn.

A resample of a test side is a row of whole numbers: how often each image was drawn. The figures of
`agiqa.metrics` are computed from those counts for all resamples together, without building one:

* SRCC: mean ranks within the resample (copies of an image tie), then Pearson's;
* PLCC: Pearson's weighted sums, one matrix product;
* PLCC after the logistic, RMSE: the curve that was fitted once to the test side stays, since a fit
  for each resample takes a thousand times as long and four parameters on hundreds of images hardly
  move;
* KRCC: its linear part (Hájek's projection of the two counts under the root), as the exact one is
  quadratic in the images. Its interval is that of the infinitesimal jackknife.

`intervals` draws the counts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from agiqa.metrics import fit_logistic

Array = NDArray[np.float64]

FIGURES = ("srcc", "krcc", "plcc", "plcc_logistic", "rmse")
ROWS = 1024  # of a block of the pairs that KRCC compares


@dataclass(frozen=True)
class TestSide:
    """One model's scores on one test side, with what all its resamples share."""

    __test__ = False  # no test of pytest's

    mos: Array  # (n,)
    score: Array  # (n,)
    mapped: Array  # (n,), the scores after the logistic
    kendall: tuple[Array, Array, Array]  # (n,) each: mean sign products of an image's pairs


def test_side(mos: Array, score: Array) -> TestSide:
    """Prepare `(n,)` scores against their MOS; both finite, n at least 2."""
    return TestSide(mos, score, fit_logistic(mos, score), _kendall_parts(mos, score))


@dataclass(frozen=True)
class Draw:
    """Counts of a test side's images, with what every model on that side shares."""

    counts: Array  # (B, n): how often each image was drawn
    mos_ranks: Array  # (B, n), less the mean rank


def drawn_counts(counts: Array, mos: Array) -> Draw:
    """Prepare counts `(B, n)` for all models that are measured against the MOS `(n,)`.

    Rows may differ in their sums: groups of unequal size were drawn.
    """
    return Draw(counts, _ranks(mos, counts))


test_side.__test__ = False  # type: ignore[attr-defined]


def resampled(side: TestSide, drawn: Draw) -> dict[str, Array]:
    """The figures of each of B resamples `(B,)`; NaN where one holds a single image or value."""
    mos, score, mapped = (each - each.mean() for each in (side.mos, side.score, side.mapped))
    error = np.square(side.mos - side.mapped)
    columns = (np.ones_like(mos), mos, mos * mos, score, score * score, mos * score,
               mapped, mapped * mapped, mos * mapped, error)  # fmt: skip
    n, x, xx, y, yy, xy, z, zz, xz, squares = (drawn.counts @ np.stack(columns, axis=1)).T
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "srcc": _weighted_srcc(drawn, side.score),
            "krcc": _linear_krcc(side.kendall, drawn.counts, n),
            "plcc": (n * xy - x * y) / np.sqrt((n * xx - x**2) * (n * yy - y**2)),
            "plcc_logistic": (n * xz - x * z) / np.sqrt((n * xx - x**2) * (n * zz - z**2)),
            "rmse": np.sqrt(squares / n),
        }


def _weighted_srcc(drawn: Draw, score: Array) -> Array:
    ranks = _ranks(score, drawn.counts)
    mos = drawn.counts * drawn.mos_ranks
    covariance = np.einsum("bn,bn->b", mos, ranks)
    mos_spread = np.einsum("bn,bn->b", mos, drawn.mos_ranks)
    spread = np.einsum("bn,bn,bn->b", drawn.counts, ranks, ranks)
    return np.asarray(covariance / np.sqrt(mos_spread * spread))


def _ranks(values: Array, counts: Array) -> Array:
    """Mean ranks of each image's value among all that were drawn, less their mean `(B, n)`."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    drawn = counts[:, order]
    if len(first) < len(values):
        drawn = np.add.reduceat(drawn, first, axis=1)  # of each distinct value
    rank = np.cumsum(drawn, axis=1)
    middle = (rank[:, -1:] + 1) / 2
    rank -= (drawn - 1) / 2 + middle
    place = np.empty(len(values), dtype=np.intp)
    place[order] = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(values)]))
    return np.asarray(np.take(rank, place, axis=1))


def _kendall_parts(mos: Array, score: Array) -> tuple[Array, Array, Array]:
    """For each image the mean over the others of sign·sign, and of both signs squared."""
    x, y = rankdata(mos).astype(np.float32), rankdata(score).astype(np.float32)
    n = len(x)
    agree = np.empty(n)
    for start in range(0, n, ROWS):
        some = slice(start, start + ROWS)
        one = np.sign(x[some, None] - x[None, :])
        agree[some] = np.einsum("ij,ij->i", one, np.sign(y[some, None] - y[None, :]))
    return agree / (n - 1), _differing(x) / (n - 1), _differing(y) / (n - 1)


def _differing(ranks: NDArray[np.float32]) -> Array:
    """For each image how many others have another value."""
    _, place, same = np.unique(ranks, return_inverse=True, return_counts=True)
    return np.asarray(len(ranks) - same[place], dtype=np.float64)


def _linear_krcc(parts: tuple[Array, Array, Array], counts: Array, total: Array) -> Array:
    """Tau-b with each of its three mean counts replaced by 2·(their mean in the resample) − all."""
    every = np.stack(parts, axis=1)  # (n, 3)
    agree, mos_differs, score_differs = (2 * (counts @ every).T / total) - every.mean(0)[:, None]
    return np.asarray(agree / np.sqrt(mos_differs * score_differs))
