"""Schedules against torch's own, each recipe's optimiser, the average by hand.

That both go on to the bit is held by the fits that are stopped (`paper/test_training.py`).
"""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from agiqa.stage2.presets import RECIPES
from agiqa.stage2.training.epochs import MovingAverage, make_optimiser, rate

PAPER, FIXED = RECIPES["paper"], RECIPES["paper-fixed"]


def test_the_cycle_is_the_authors() -> None:
    """CosineAnnealingLR(T_max=50) stepped by batch, as their main.py has it."""
    optimiser = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=1e-5)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=50, eta_min=0)
    for step in range(420):
        assert rate(step, 7800, PAPER) == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-12)
        optimiser.step()
        theirs.step()
    assert rate(50, 7800, PAPER) == 0
    assert rate(100, 7800, PAPER) == pytest.approx(1e-5)


def test_one_cosine_with_a_warm_up() -> None:
    rates = [rate(step, 1000, FIXED) for step in range(1000)]
    assert max(rates) == pytest.approx(FIXED.lr, rel=0.01)
    assert rates.index(max(rates)) in range(45, 51)
    assert all(a < b for a, b in pairwise(rates[:46]))
    assert all(a > b for a, b in pairwise(rates[50:]))
    assert rates[0] < FIXED.lr / 40
    assert rates[-1] < FIXED.lr / 1000
    assert rate(0, 1000, replace(FIXED, warmup=0.0)) == FIXED.lr


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 1))


def test_each_recipe_has_its_optimiser() -> None:
    model = _model()
    adam = make_optimiser(model, PAPER)
    assert type(adam) is torch.optim.Adam
    assert [group["weight_decay"] for group in adam.param_groups] == [1e-5]
    adamw = make_optimiser(model, FIXED)
    assert type(adamw) is torch.optim.AdamW
    decayed, spared = adamw.param_groups
    assert decayed["weight_decay"] == FIXED.weight_decay
    assert spared["weight_decay"] == 0
    assert {p.ndim for p in decayed["params"]} == {2}
    assert {p.ndim for p in spared["params"]} == {1}
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))


def test_the_moving_average_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    average = MovingAverage(model, 0.5)
    by_hand = 1.0
    for step, value in enumerate([2.0, 4.0, 8.0] * 8, start=1):
        nn.init.constant_(model.weight, value)
        average.update(model)
        decay = min(0.5, step / (10 + step))
        by_hand = decay * by_hand + (1 - decay) * value
    assert average.weights["weight"].item() == pytest.approx(by_hand)
    assert model.weight.item() == 8.0
