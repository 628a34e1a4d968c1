"""The gate: an aspect that knows something may speak, noise and contradiction may not."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from agiqa.runs.explain.reasons import validity

NAMES = ("planted", "noise", "against", "constant")


def _made(seed: int, count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mos = rng.normal(size=count)
    planted, noise = 0.5 * mos + rng.normal(size=count), rng.normal(size=count)
    return np.stack([planted, noise, -planted, np.ones(count)], axis=1), mos


def test_a_planted_aspect_is_shown_and_the_others_are_not() -> None:
    levels, mos = _made(0)
    found = validity(NAMES, levels, mos, None, [str(row) for row in range(len(mos))])
    assert [each.shown for each in found] == [True, False, False, False]
    planted, _, against, constant = found
    assert planted.rho_mos == pytest.approx(spearmanr(levels[:, 0], mos)[0], abs=1e-9)
    assert 0 < planted.low < planted.rho_mos < planted.high < 1
    assert against.mos_high < 0
    assert np.isnan(constant.rho_mos)
    assert np.isnan(planted.rho_residual)


def test_noise_is_shown_in_fewer_than_one_study_of_twenty() -> None:
    """Twelve aspects of noise each time: widened intervals keep the whole family at 5 %."""
    wrong = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        levels, mos = rng.normal(size=(120, 12)), rng.normal(size=120)
        names = [str(place) for place in range(12)]
        groups = [str(row) for row in range(120)]
        wrong += any(each.shown for each in validity(names, levels, mos, None, groups))
    assert wrong <= 5


def test_a_relation_to_the_error_alone_is_enough() -> None:
    rng = np.random.default_rng(0)
    mos, residual = rng.normal(size=(2, 300))
    levels = (residual + rng.normal(size=300))[:, None]
    (found,) = validity(["error"], levels, mos, residual, [str(row) for row in range(300)])
    assert found.shown
    assert found.mos_low <= 0 < found.residual_low
    assert (found.low, found.high) == (found.residual_low, found.residual_high)


def test_copies_of_few_groups_prove_nothing() -> None:
    """Twenty-five prompts with forty images each are twenty-five prompts."""
    rng = np.random.default_rng(3)
    levels, mos = rng.normal(size=25), rng.normal(size=25)
    levels += 0.3 * mos
    groups = [str(row) for row in range(25) for _ in range(40)]
    alone = [str(row) for row in range(1000)]
    many, one = np.repeat(levels, 40)[:, None], np.repeat(mos, 40)
    (grouped,), (apart,) = (validity(["a"], many, one, None, each) for each in (groups, alone))
    assert grouped.mos_high - grouped.mos_low > 4 * (apart.mos_high - apart.mos_low)
    (few,) = validity(["a"], levels[:10, None], mos[:10], None, groups[::40][:10])
    assert np.isnan(few.mos_low)
    assert not few.shown


def test_certain_but_tiny_relations_are_not_shown() -> None:
    """5,000 images make a rho of .07 certain; a reason it is not."""
    rng = np.random.default_rng(0)
    mos = rng.normal(size=5_000)
    levels = (0.07 * mos + rng.normal(size=5_000))[:, None]
    (found,) = validity(["tiny"], levels, mos, None, [str(row) for row in range(5_000)])
    assert found.mos_low > 0
    assert not found.shown
