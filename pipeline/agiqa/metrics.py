"""How well predicted scores agree with mean opinion scores (MOS): the field's five figures.

SRCC and KRCC compare raw scores; PLCC is given raw, and again, with RMSE, after the 4-parameter
logistic that VQEG (Final Report on the Validation of Objective Models of Video Quality
Assessment, phase I, 2000) fits between scores and MOS before it asks how linear they are.
`training` uses SRCC and PLCC to pick epochs, `evaluation` uses all of them.

Every function takes the MOS `(N,)` first, then the scores `(N,)`, and returns a plain float. A
correlation that is not defined (fewer than two images, one side constant, a NaN or an infinity
anywhere) is `nan`, without a warning. Sides of different length raise `AgiqaError`.
"""

import logging
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.special import expit
from scipy.stats import kendalltau, rankdata

from agiqa.errors import AgiqaError

log = logging.getLogger(__name__)

Array = NDArray[np.float64]

LEAST_FOR_LOGISTIC = 5  # images; through four the four parameters pass exactly
FIT_DECIMALS = 11  # kept of standardised numbers before the logistic is fitted to them
MAX_EVALUATIONS = 400  # of the logistic in one fit; an ordinary one takes 10 to 50


def srcc(mos: ArrayLike, score: ArrayLike) -> float:
    """Spearman's rank correlation: the PLCC of the ranks, ties at their mean rank.

    >>> round(srcc([1, 2, 3, 4], [10, 20, 40, 30]), 6)
    0.8
    """
    truth, ours = _pair(mos, score)
    if not _defined(truth, ours):
        return math.nan
    return _pearson(rankdata(truth), rankdata(ours))


def krcc(mos: ArrayLike, score: ArrayLike) -> float:
    """Kendall's tau-b: (concordant − discordant) / √((pairs − ties in MOS)(pairs − ties in score)).

    >>> round(krcc([1, 2, 3, 4], [10, 20, 40, 30]), 6)
    0.666667
    """
    truth, ours = _pair(mos, score)
    if not _defined(truth, ours):
        return math.nan
    return float(kendalltau(truth, ours, variant="b").statistic)


def plcc(mos: ArrayLike, score: ArrayLike) -> float:
    """Pearson's linear correlation of the raw scores: covariance / (sd of MOS · sd of score).

    >>> round(plcc([1, 2, 3], [2, 4, 6.3]), 6)
    0.99919
    """
    truth, ours = _pair(mos, score)
    return _pearson(truth, ours) if _defined(truth, ours) else math.nan


def plcc_logistic(mos: ArrayLike, score: ArrayLike) -> float:
    """PLCC between MOS and `fit_logistic(mos, score)`: of the form of the curve, not its scale.

    As the curve may fall as well as rise, scores that are wrong way round get a positive figure:
    read it beside the raw PLCC. Never below |raw PLCC|.
    """
    truth, ours = _pair(mos, score)
    if not _defined(truth, ours):
        return math.nan
    return _pearson(_unit(truth), _fit_unit(_unit(truth), _unit(ours)))


def rmse(mos: ArrayLike, score: ArrayLike) -> float:
    """√(mean (MOS − mapped score)²), in units of the MOS, after `fit_logistic`.

    Constant scores map to the mean MOS, so they get its standard deviation (dividing by N); fewer
    than two images, NaN or infinity give `nan`.
    """
    truth, ours = _pair(mos, score)
    if not _usable(truth, ours):
        return math.nan
    return _root_mean_square(truth - fit_logistic(truth, ours))


def all_metrics(mos: ArrayLike, score: ArrayLike) -> dict[str, float]:
    """The five figures by name: srcc, krcc, plcc, plcc_logistic, rmse.

    >>> {name: round(value, 3) for name, value in all_metrics([1, 2, 3], [2, 4, 6]).items()}
    {'srcc': 1.0, 'krcc': 1.0, 'plcc': 1.0, 'plcc_logistic': 1.0, 'rmse': 0.0}
    """
    return {
        "srcc": srcc(mos, score),
        "krcc": krcc(mos, score),
        "plcc": plcc(mos, score),
        "plcc_logistic": plcc_logistic(mos, score),
        "rmse": rmse(mos, score),
    }


def summarise(values: Sequence[float]) -> dict[str, float]:
    """Median, mean and standard deviation (N − 1) of one figure over the splits.

    The deviation of one value is 0. A NaN makes all three NaN, rather than leave a split out
    unsaid; so does an empty sequence.

    >>> summarise([0.5, 1.0, 0.75])
    {'median': 0.75, 'mean': 0.75, 'sd': 0.25}
    """
    array = np.asarray(values, dtype=np.float64)
    if len(array) == 0 or not np.isfinite(array).all():
        return {"median": math.nan, "mean": math.nan, "sd": math.nan}
    sd = float(array.std(ddof=1)) if len(array) > 1 else 0.0
    return {"median": float(np.median(array)), "mean": float(array.mean()), "sd": sd}


def fit_logistic(mos: ArrayLike, score: ArrayLike) -> Array:
    """The scores `(N,)` on the scale of the MOS, after the least-squares 4-parameter logistic.

    f(x) = b2 + (b1 − b2) / (1 + exp(−(x − b3) / |b4|)), started as VQEG starts it (b1, b2 at the
    highest and lowest MOS, b3 at the mean score, b4 from its deviation), and again from a wide,
    a steep and a falling curve; both sides are standardised and rounded first, so units do not
    matter, not even by what a conversion leaves in the last digits.

    The closest curve found counts. Among them is the least-squares straight line, which a very
    wide logistic becomes: so the result is never worse than that where no start converges (which
    is logged), and it is the line for fewer than five images.

    Raises:
        AgiqaError: sides of different length, fewer than two images, NaN or infinity.
    """
    truth, ours = _pair(mos, score)
    if not _usable(truth, ours):
        raise AgiqaError(
            f"expected at least two finite scores to fit the logistic, found {len(truth)} images "
            f"with {int(np.sum(~(np.isfinite(truth) & np.isfinite(ours))))} that are not finite"
        )
    centre, spread = float(truth.mean()), float(truth.std())
    if not _defined(truth, ours):
        return np.full(len(truth), centre)
    return centre + spread * _fit_unit(_unit(truth), _unit(ours))


def _fit_unit(y: Array, x: Array) -> Array:
    """`fit_logistic` for sides `(N,)` that have mean 0 and deviation 1."""
    # Where scores say little, the fit has many optima, and a last digit decides between them.
    y, x = y.round(FIT_DECIMALS), x.round(FIT_DECIMALS)
    best = float(np.mean(x * y)) * x
    least = _root_mean_square(y - best)
    if len(x) < LEAST_FOR_LOGISTIC:
        return best
    starts = (
        (y.max(), y.min(), 0.0, 0.25),  # VQEG's
        (y.max(), y.min(), 0.0, 1.0),
        (3.0, -3.0, 0.0, 4.0),
        (y.min(), y.max(), 0.0, 0.5),
    )
    converged = False
    for start in starts:
        found = least_squares(
            lambda b: _logistic(x, *b) - y,
            start,
            jac=lambda b: _slopes(x, *b),
            method="lm",
            max_nfev=MAX_EVALUATIONS,
        )
        converged = converged or found.success
        mapped = _logistic(x, *found.x)
        if _root_mean_square(y - mapped) < least:
            best, least = mapped, _root_mean_square(y - mapped)
    if not converged:
        log.debug("The logistic did not converge on %d images: closest curve used.", len(x))
    return best


def _logistic(x: Array, b1: float, b2: float, b3: float, b4: float) -> Array:
    width = max(abs(b4), 1e-9)
    return np.asarray(b2 + (b1 - b2) * expit((x - b3) / width), dtype=np.float64)


def _slopes(x: Array, b1: float, b2: float, b3: float, b4: float) -> Array:
    """Derivatives of `_logistic` by its four parameters, `(N, 4)`."""
    width = max(abs(b4), 1e-9)
    z = (x - b3) / width
    part = expit(z)
    rise = (b1 - b2) * part * (1 - part) / width
    return np.stack([part, 1 - part, -rise, -rise * z * math.copysign(1, b4)], axis=1)


def _pair(mos: ArrayLike, score: ArrayLike) -> tuple[Array, Array]:
    truth, ours = np.asarray(mos, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != ours.shape:
        raise AgiqaError(
            "expected one score for each MOS, as two rows of equal length; "
            f"found shapes {truth.shape} and {ours.shape}"
        )
    return truth, ours


def _usable(truth: Array, ours: Array) -> bool:
    return len(truth) >= 2 and bool(np.isfinite(truth).all() and np.isfinite(ours).all())


def _defined(truth: Array, ours: Array) -> bool:
    """Whether a correlation of the two exists."""
    return _usable(truth, ours) and bool(
        (truth != truth[0]).any()
        and (ours != ours[0]).any()
        and _unit(truth).any()
        and _unit(ours).any()
    )


def _unit(values: Array) -> Array:
    """Mean 0 and deviation 1 (of N), for any finite values: scaled first, so nothing overflows.

    All zero where the values differ by less than a float can hold of their mean.
    """
    centred = values / float(np.abs(values).max() or 1.0)
    centred = centred - centred.mean()
    centred = centred / float(np.abs(centred).max() or 1.0)
    return np.asarray(centred / (_root_mean_square(centred) or 1.0), dtype=np.float64)


def _pearson(one: Array, other: Array) -> float:
    return float(np.clip(np.mean(_unit(one) * _unit(other)), -1.0, 1.0))


def _root_mean_square(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
