import math

import numpy as np
import pytest
from scipy import stats

from agiqa.data.statistics.paired import corrected_t_test, holm

GAINS = [0.004, 0.002, 0.007, -0.001, 0.003, 0.005, 0.002, 0.006, 0.001, 0.004]


def test_without_overlap_it_is_students() -> None:
    scipys = stats.ttest_1samp(GAINS, 0.0)
    ours = corrected_t_test(GAINS, 0.0)
    assert ours.p == pytest.approx(scipys.pvalue)
    interval = scipys.confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high))


def test_the_correction_is_nadeau_and_bengios() -> None:
    ours = corrected_t_test(GAINS, 2 / 7)
    mean, sd = np.mean(GAINS), np.std(GAINS, ddof=1)
    error = sd * math.sqrt(1 / 10 + 2 / 7)
    assert ours.p == pytest.approx(2 * stats.t.sf(mean / error, 9))
    assert ours.high - ours.mean == pytest.approx(2.2621571628 * error)
    assert (ours.mean, ours.sd) == pytest.approx((mean, sd))


def test_differences_that_only_overlap_made_are_not_found() -> None:
    """No true difference, but ten splits that share most of their noise: few false alarms."""
    rng = np.random.default_rng(0)
    trials = 400
    images = rng.normal(size=(trials, 300))
    plain = corrected = 0
    for row in images:
        gains = [row[rng.permutation(300)[:60]].mean() for _ in range(10)]
        plain += stats.ttest_1samp(gains, 0.0).pvalue < 0.05
        corrected += corrected_t_test(gains, 60 / 240).p < 0.05
    assert plain / trials > 0.15
    assert corrected / trials < 0.08


def test_few_equal_and_undefined_differences() -> None:
    single = corrected_t_test([0.1], 0.3)
    assert single.mean == 0.1
    assert math.isnan(single.p)
    alike = corrected_t_test([0.1, 0.1], 0.3)  # no deviation to hold the mean against
    assert (alike.mean, alike.sd) == (0.1, 0)
    assert all(math.isnan(value) for value in (alike.low, alike.high, alike.p))
    nothing = corrected_t_test([0.0, 0.0], 0.3)
    assert (nothing.low, nothing.high, nothing.p) == (0, 0, 1)
    assert math.isnan(corrected_t_test([0.1, math.nan], 0.3).mean)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([math.nan, 0.02])[1] == 0.02
