"""Intervals hold the share of new images that they promise, and promise nothing on too few."""

import numpy as np
import pytest

from agiqa.stage2.contract import CHUNK, cv_plus, reach
from agiqa.stage2.presets import INTERVAL_LEVEL


def test_the_reach_is_the_rank_of_split_conformal() -> None:
    errors = np.random.default_rng(0).permutation(np.arange(1.0, 100.0))  # 99 of them
    assert reach(errors, 0.9) == 90
    assert reach(errors[:19], 0.95) == errors[:19].max()
    assert reach(np.ones(8)) == np.inf
    assert reach(np.arange(9.0)) == 8
    assert reach(np.empty(0)) == np.inf


@pytest.mark.parametrize("images", [20, 300])
def test_nine_of_ten_new_images_are_covered(images: int) -> None:
    """Over many draws of the held-out side: at least INTERVAL_LEVEL, and hardly more."""
    rng = np.random.default_rng(1)
    covered = [
        np.mean(np.abs(rng.standard_t(3, 200)) <= reach(np.abs(rng.standard_t(3, images))))
        for _ in range(400)
    ]
    assert np.mean(covered) == pytest.approx(INTERVAL_LEVEL, abs=1.5 / images + 0.01)


def test_cv_plus_of_one_model_is_split_conformal() -> None:
    rng = np.random.default_rng(2)
    errors, scores = np.abs(rng.normal(size=50)), rng.normal(size=(1, CHUNK + 3))
    low, high = cv_plus(scores, [errors])
    np.testing.assert_allclose(low, scores[0] - reach(errors))
    np.testing.assert_allclose(high, scores[0] + reach(errors))


def test_cv_plus_is_the_formula_and_widens_where_models_disagree() -> None:
    rng = np.random.default_rng(3)
    errors = [np.abs(rng.normal(size=40)), np.abs(rng.normal(size=30))]
    scores = np.array([[1.0, 1.0], [1.0, 3.0]])
    low, high = cv_plus(scores, errors)
    for image in (0, 1):
        pairs = list(zip(scores[:, image], errors, strict=True))
        below = np.sort(np.concatenate([score - error for score, error in pairs]))
        above = np.sort(np.concatenate([score + error for score, error in pairs]))
        rank = int(np.ceil(0.9 * 71))
        assert (low[image], high[image]) == (below[70 - rank], above[rank - 1])
    assert high[1] - low[1] > high[0] - low[0] + 0.5
    ends = cv_plus(scores, [errors[0][:4], errors[1][:4]])
    assert np.isinf(ends).all()
