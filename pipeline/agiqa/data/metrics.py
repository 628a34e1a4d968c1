"""How well predicted scores agree with mean opinion scores (MOS): the field's figures.

SRCC and KRCC compare ranks; raw PLCC, RMSE and MAE compare the scores as they are. PLCC and RMSE
come again after the 4-parameter logistic that VQEG (Final Report on the Validation of Objective
Models of Video Quality Assessment, phase I, 2000) fits between scores and MOS, as the field prints
them: `plcc_logistic` and `rmse`. That fit sees the answers, and on few images flatters: six images
off by .585 of a point may fit with an RMSE of .124. So `all_metrics` leaves the two out below
LEAST_FOR_FITTED images, and `why_undefined` says for each figure that is missing why it is.

Every function takes the MOS `(N,)` first, then the scores `(N,)`, of any type of number, computes
in float64 and returns a plain float. A correlation that is not defined (fewer than two images, one
side constant, a NaN or an infinity anywhere) is `nan`, without a warning. An image without a MOS is
for the caller to leave out. Sides of different length raise `AgiqaError`.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agiqa.core.errors import AgiqaError, one_line
from agiqa.data.metric_names import FITTED, LEAST_FOR_FITTED, TOO_FEW_TO_FIT

log = logging.getLogger(__name__)

Array = NDArray[np.float64]

LEAST_FOR_LOGISTIC = 5  # images; through four the four parameters pass exactly
FIT_DECIMALS = 11  # kept of standardised numbers before the logistic is fitted to them
MAX_EVALUATIONS = 400  # of the logistic in one fit; an ordinary one takes 10 to 50


def srcc(mos: ArrayLike, score: ArrayLike) -> float:
    """Compute Spearman's rank correlation: the PLCC of the ranks, ties at their mean rank.

    >>> round(srcc([1, 2, 3, 4], [10, 20, 40, 30]), 6)
    0.8
    """
    mos, score = _pair(mos, score)
    return _pearson(_ranks(mos), _ranks(score)) if _defined(mos, score) else math.nan


def krcc(mos: ArrayLike, score: ArrayLike) -> float:
    """Compute Kendall's tau-b, τ = (concordant − discordant) / √(untied in MOS · untied in score).

    >>> round(krcc([1, 2, 3, 4], [10, 20, 40, 30]), 6)
    0.666667
    """
    from scipy.stats import kendalltau

    mos, score = _pair(mos, score)
    if not _defined(mos, score):
        return math.nan
    return float(kendalltau(mos, score, variant="b").statistic)


def plcc(mos: ArrayLike, score: ArrayLike) -> float:
    """Compute Pearson's linear correlation of raw scores: covariance / (sd of MOS · sd of score).

    >>> round(plcc([1, 2, 3], [2, 4, 6.3]), 6)
    0.99919
    """
    mos, score = _pair(mos, score)
    return _pearson(mos, score) if _defined(mos, score) else math.nan


def plcc_logistic(mos: ArrayLike, score: ArrayLike) -> float:
    """Compute the PLCC of MOS and `fit_logistic(mos, score)`: of a curve's form, not its scale.

    As the curve may fall as well as rise, scores that are wrong way round get a positive figure:
    read it beside the raw PLCC. Never below |raw PLCC|.
    """
    mos, score = _pair(mos, score)
    if not _defined(mos, score):
        return math.nan
    return _pearson(_unit(mos), _curve(mos, score))


def rmse_raw(mos: ArrayLike, score: ArrayLike) -> float:
    """Compute √(mean (MOS − score)²) of the scores as they are, in units of the MOS.

    >>> rmse_raw([1, 2, 3, 4], [1, 2, 3, 6])
    1.0
    """
    mos, score = _pair(mos, score)
    return _root_mean_square(mos - score) if _measured(mos, score) else math.nan


def mae(mos: ArrayLike, score: ArrayLike) -> float:
    """Compute the mean |MOS − score| of the scores as they are, in units of the MOS.

    >>> mae([1, 2, 3, 4], [1, 2, 3, 6])
    0.5
    """
    mos, score = _pair(mos, score)
    return float(np.mean(np.abs(mos - score))) if _measured(mos, score) else math.nan


def rmse(mos: ArrayLike, score: ArrayLike) -> float:
    """Compute √(mean (MOS − mapped score)²), in units of the MOS, after `fit_logistic`.

    Constant scores map to the mean MOS, so they get its standard deviation (dividing by N); fewer
    than two images, NaN or infinity give `nan`.
    """
    mos, score = _pair(mos, score)
    if not _usable(mos, score):
        return math.nan
    return _root_mean_square(mos - fit_logistic(mos, score))


def all_metrics(mos: ArrayLike, score: ArrayLike) -> dict[str, float]:
    """Compute all figures by name, raw errors before the fitted; those in FITTED of few are NaN.

    >>> {name: round(value, 3) for name, value in all_metrics([1, 2, 3], [2, 4, 6]).items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'srcc': 1.0, 'krcc': 1.0, 'plcc': 1.0, 'rmse_raw': 2.16, 'mae': 2.0,
     'plcc_logistic': nan, 'rmse': nan}
    """
    mos, score = _pair(mos, score)
    figures = {
        n: math.nan if n in FITTED else measure(mos, score) for n, measure in METRICS.items()
    }
    if len(mos) >= LEAST_FOR_FITTED and _usable(mos, score):
        curve = _curve(mos, score)  # once for both: it takes most of the time
        if _defined(mos, score):
            figures["plcc_logistic"] = _pearson(_unit(mos), curve)
        figures["rmse"] = _root_mean_square(mos - _on_scale_of(mos, curve))
    return figures


def why_undefined(mos: ArrayLike, score: ArrayLike, figures: Mapping[str, float]) -> dict[str, str]:
    """Say why, for each of the figures of `all_metrics` that is NaN.

    >>> why_undefined([1, 2, 3], [2, 2, 2], {"srcc": math.nan, "mae": 0.7})
    {'srcc': 'all scores are equal'}
    """
    mos, score = _pair(mos, score)
    return {n: _why(mos, score, n) for n, value in figures.items() if math.isnan(value)}


def _why(mos: Array, score: Array, name: str) -> str:
    if not len(mos):
        return "no test image"
    if not (np.isfinite(mos).all() and np.isfinite(score).all()):
        return "a score or target is not a number"
    if len(mos) == 1:
        return "a single test image"
    if name in FITTED and len(mos) < LEAST_FOR_FITTED:
        return TOO_FEW_TO_FIT
    return "all targets are equal" if not _varies(mos) else "all scores are equal"


def summarise(values: Sequence[float]) -> dict[str, float]:
    """Summarise one figure over the splits: median, mean, standard deviation (N − 1).

    One value has no deviation: NaN. A NaN makes all three NaN, rather than leave a split out
    unsaid; so does an empty sequence.

    >>> summarise([0.5, 1.0, 0.75])
    {'median': 0.75, 'mean': 0.75, 'sd': 0.25}
    """
    array = np.asarray(values, dtype=np.float64)
    if len(array) == 0 or not np.isfinite(array).all():
        return {"median": math.nan, "mean": math.nan, "sd": math.nan}
    sd = float(array.std(ddof=1)) if len(array) > 1 else math.nan
    return {"median": float(np.median(array)), "mean": float(array.mean()), "sd": sd}


def fit_logistic(mos: ArrayLike, score: ArrayLike) -> Array:
    """Map the scores `(N,)` to the scale of the MOS by the least-squares 4-parameter logistic.

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
    mos, score = _pair(mos, score)
    if not _usable(mos, score):
        raise AgiqaError(
            f"expected at least two finite scores to fit the logistic, found {len(mos)} images "
            f"with {int(np.sum(~(np.isfinite(mos) & np.isfinite(score))))} that are not finite"
        )
    return _on_scale_of(mos, _curve(mos, score))


def _on_scale_of(mos: Array, curve: Array) -> Array:
    """Scale a curve `(N,)` of mean 0 and deviation 1 to the mean and deviation of the MOS."""
    if not curve.any():  # the MOS's deviation may be more than a float can hold
        return np.full(len(mos), float(mos.mean()))
    return float(mos.mean()) + float(mos.std()) * curve


def _curve(mos: Array, score: Array) -> Array:
    """Fit as `fit_logistic` does, in units of the MOS's deviation from its mean, `(N,)`."""
    from scipy.optimize import least_squares

    if not _defined(mos, score):
        return np.zeros(len(mos))
    # Where scores say little, the fit has many optima, and a last digit decides between them.
    y, x = _unit(mos).round(FIT_DECIMALS), _unit(score).round(FIT_DECIMALS)
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
        fit = least_squares(
            lambda b: _logistic(x, *b) - y,
            start,
            jac=lambda b: _slopes(x, *b),
            method="lm",
            max_nfev=MAX_EVALUATIONS,
        )
        converged = converged or fit.success
        mapped = _logistic(x, *fit.x)
        if _root_mean_square(y - mapped) < least:
            best, least = mapped, _root_mean_square(y - mapped)
    if not converged:
        log.debug("The logistic did not converge on %d images: closest curve used.", len(x))
    return best


def _logistic(x: Array, b1: float, b2: float, b3: float, b4: float) -> Array:
    from scipy.special import expit

    width = max(abs(b4), 1e-9)
    return np.asarray(b2 + (b1 - b2) * expit((x - b3) / width), dtype=np.float64)


def _slopes(x: Array, b1: float, b2: float, b3: float, b4: float) -> Array:
    """Compute derivatives of `_logistic` by its four parameters, `(N, 4)`."""
    from scipy.special import expit

    width = max(abs(b4), 1e-9)
    z = (x - b3) / width
    part = expit(z)
    rise = (b1 - b2) * part * (1 - part) / width
    return np.stack([part, 1 - part, -rise, -rise * z * math.copysign(1, b4)], axis=1)


def _pair(mos: ArrayLike, score: ArrayLike) -> tuple[Array, Array]:
    mos, score = _numbers(mos, "MOS"), _numbers(score, "scores")
    if mos.ndim != 1 or mos.shape != score.shape:
        raise AgiqaError(
            "expected one score for each MOS, as two rows of equal length; "
            f"found shapes {mos.shape} and {score.shape}"
        )
    return mos, score


def _numbers(values: ArrayLike, label: str) -> Array:
    """Convert to float64; what a masked array hides is NaN. What is no number is refused."""
    try:
        if isinstance(values, np.ma.MaskedArray):
            values = np.ma.filled(values.astype(np.float64), np.nan)
        array = np.asarray(values)
        if array.dtype.kind not in "biufO":
            raise TypeError(f"{array.dtype} is no type of number")
        return array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AgiqaError(f"expected {label} as a row of numbers: {one_line(error)}") from error


def _measured(mos: Array, score: Array) -> bool:
    """Tell whether an error of the two exists: one image is enough."""
    return len(mos) > 0 and bool(np.isfinite(mos).all() and np.isfinite(score).all())


def _usable(mos: Array, score: Array) -> bool:
    return len(mos) >= 2 and _measured(mos, score)


def _defined(mos: Array, score: Array) -> bool:
    """Tell whether a correlation of the two exists."""
    return _usable(mos, score) and _varies(mos) and _varies(score)


def _varies(values: Array) -> bool:
    """Tell whether there is any difference, and one that a float can hold."""
    return bool((values != values[0]).any() and _unit(values).any())


def _unit(values: Array) -> Array:
    """Scale finite values to mean 0 and deviation 1 (of N), in an order that never overflows.

    All zero where the values differ by less than a float can hold of their mean.
    """
    centred = values / float(np.abs(values).max() or 1.0)
    centred = centred - centred.mean()
    centred = centred / float(np.abs(centred).max() or 1.0)
    return np.asarray(centred / (_root_mean_square(centred) or 1.0), dtype=np.float64)


def _ranks(values: Array) -> Array:
    """Rank finite values `(n,)` from 1, ties at their mean, in a third of SciPy's time."""
    _, value_index, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[value_index])


def _pearson(first: Array, second: Array) -> float:
    return float(np.clip(np.mean(_unit(first) * _unit(second)), -1.0, 1.0))


def _root_mean_square(values: Array) -> float:
    """Compute √(mean values²), scaled first so that no square overflows or vanishes."""
    largest = float(np.abs(values).max()) or 1.0
    return largest * float(np.sqrt(np.mean(np.square(values / largest))))


METRICS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    figure.__name__: figure for figure in (srcc, krcc, plcc, rmse_raw, mae, plcc_logistic, rmse)
}
