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


test_side.__test__ = False  # type: ignore[attr-defined]


def resampled(side: TestSide, counts: Array) -> dict[str, Array]:
    """The figures of each resample.

    Args:
        side: n images.
        counts: how often each image was drawn `(B, n)`; rows differ in their sums where groups of
            unequal size were drawn.

    Returns:
        By figure `(B,)`; NaN where a resample holds a single image or value.
    """
    total = counts.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = counts @ np.square(side.mos - side.mapped)
        return {
            "srcc": _weighted_srcc(side.mos, side.score, counts),
            "krcc": _linear_krcc(side.kendall, counts),
            "plcc": _weighted_plcc(side.mos, side.score, counts),
            "plcc_logistic": _weighted_plcc(side.mos, side.mapped, counts),
            "rmse": np.sqrt(error / total),
        }


def _weighted_plcc(x: Array, y: Array, counts: Array) -> Array:
    x, y = x - x.mean(), y - y.mean()
    sums = counts @ np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)
    n, sx, sy, sxx, syy, sxy = sums.T
    return np.asarray((n * sxy - sx * sy) / np.sqrt((n * sxx - sx**2) * (n * syy - sy**2)))


def _weighted_srcc(x: Array, y: Array, counts: Array) -> Array:
    one, other = (_ranks(values, counts) for values in (x, y))
    n = counts.sum(axis=1)
    middle = ((n + 1) / 2)[:, None]  # the mean rank
    one -= middle
    other -= middle
    covariance = np.einsum("bn,bn,bn->b", counts, one, other)
    spread = np.einsum("bn,bn,bn->b", counts, one, one)
    spread_other = np.einsum("bn,bn,bn->b", counts, other, other)
    return np.asarray(covariance / np.sqrt(spread * spread_other))


def _ranks(values: Array, counts: Array) -> Array:
    """Mean ranks of each image's value among all that were drawn `(B, n)`."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    drawn = np.add.reduceat(counts[:, order], first, axis=1)  # of each distinct value
    rank = np.cumsum(drawn, axis=1) - (drawn - 1) / 2
    place = np.empty(len(values), dtype=np.intp)
    place[order] = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(values)]))
    return np.asarray(rank[:, place])


def _kendall_parts(mos: Array, score: Array) -> tuple[Array, Array, Array]:
    """For each image the mean over the others of sign·sign, and of both signs squared."""
    x, y = rankdata(mos).astype(np.float32), rankdata(score).astype(np.float32)
    n = len(x)
    parts = np.empty((3, n))
    for start in range(0, n, ROWS):
        some = slice(start, start + ROWS)
        one = np.sign(x[some, None] - x[None, :])
        other = np.sign(y[some, None] - y[None, :])
        parts[0, some] = np.einsum("ij,ij->i", one, other)
        parts[1, some] = np.einsum("ij,ij->i", one, one)
        parts[2, some] = np.einsum("ij,ij->i", other, other)
    agree, mos_differs, score_differs = parts / (n - 1)
    return agree, mos_differs, score_differs


def _linear_krcc(parts: tuple[Array, Array, Array], counts: Array) -> Array:
    """Tau-b with each of its three mean counts replaced by 2·(their mean in the resample) − all."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    agree, mos_differs, score_differs = (2 * (shares @ part) - part.mean() for part in parts)
    return np.asarray(agree / np.sqrt(mos_differs * score_differs))
