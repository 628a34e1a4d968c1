"""Is one model better than another on the same splits: a test that knows that splits overlap.

Random splits of one data set share most of their training images, so their differences are far from
independent, and the ordinary paired t-test finds differences that are not there. Nadeau and Bengio
("Inference for the Generalization Error", Machine Learning 52, 2003, equation 5) correct its
variance: (1/J + n_test/n_train) s² in place of s²/J.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

LEVEL = 0.95


@dataclass(frozen=True)
class Corrected:
    """The corrected resampled t-test of J differences."""

    mean: float
    sd: float
    low: float  # 95 % interval of the mean difference
    high: float
    p: float  # two-sided


def corrected_t_test(differences: Sequence[float], test_to_train: float) -> Corrected:
    """Test whether the mean of J differences, one a split, is zero.

    `test_to_train` is images of a test side for each of a training side, such as 20/70. Interval
    and p are NaN with fewer than two splits, and where all differences are equal: the test divides
    by their deviation. Of differences that are all zero the interval is 0, p is 1.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        return Corrected(math.nan, math.nan, math.nan, math.nan, math.nan)
    mean = float(values.mean())
    if len(values) < 2:
        return Corrected(mean, math.nan, math.nan, math.nan, math.nan)
    sd = float(values.std(ddof=1))
    error = sd * math.sqrt(1 / len(values) + test_to_train)
    if error == 0:
        return Corrected(mean, 0.0, *((0.0, 0.0, 1.0) if mean == 0 else (math.nan,) * 3))
    reach = error * float(student.ppf((1 + LEVEL) / 2, len(values) - 1))
    p = 2 * float(student.sf(abs(mean) / error, len(values) - 1))
    return Corrected(mean, sd, mean - reach, mean + reach, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust several p-values by Holm's step-down (1979); a NaN stays and doesn't count."""
    known = [(p, index) for index, p in enumerate(p_values) if math.isfinite(p)]
    adjusted = [math.nan] * len(p_values)
    highest = 0.0
    for step, (p, index) in enumerate(sorted(known)):
        highest = max(highest, min(1.0, p * (len(known) - step)))
        adjusted[index] = highest
    return adjusted
