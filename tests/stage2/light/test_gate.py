"""Mixtures: the constant one fits best, and a gate is kept where it is worth having, only there."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from agiqa.core.params import Fit
from agiqa.stage2.light.mixture import Mixture, SideScores, constant_mixture, train_gate

EVERY = slice(None)
KEPT = 6  # components


def _side(count: int, seed: int, *, useful: bool = True, targets: int = 1) -> SideScores:
    """Images whose first component says which of two experts knows the score, or (not useful) not.

    A third expert knows nothing.
    """
    rng = np.random.default_rng(seed)
    mos = rng.normal(size=(count, targets))
    components = rng.normal(size=(count, KEPT))
    first = (components[:, :1] > 0) if useful else rng.random((count, 1)) > 0.5
    known = [np.where(knows, mos, rng.normal(size=mos.shape)) for knows in (first, ~first)]
    scores = np.stack([*known, rng.normal(size=mos.shape)], axis=1)
    tensors = (torch.from_numpy(part).float() for part in (components, scores, mos))
    return SideScores(*tensors, torch.zeros(count, dtype=torch.int64))


def _fit(*, gate: str = "softmax", train: int = 500, val: int = 200, **about: object) -> Mixture:
    sides = _side(train, 0, **about), _side(val, 1, **about)
    constant = constant_mixture(sides[0], 1, gate == "softmax", EVERY)
    return train_gate(constant, *sides, Fit(gate=gate))[0]


def _error(mixture: Mixture, side: SideScores) -> float:
    return float((mixture.mix(side.components, side.expert_scores)[0] - side.mos).square().mean())


def test_the_constant_mixture_is_the_one_that_fits_best() -> None:
    side = _side(300, 0)
    mixture = constant_mixture(side, 1, True, EVERY)
    weights = (mixture.shares * mixture.scale)[:, 0].numpy()
    best = nnls(side.expert_scores[..., 0].double().numpy(), side.mos[:, 0].double().numpy())[0]
    np.testing.assert_allclose(weights, best, rtol=1e-5)
    score, shown = mixture.mix(side.components, side.expert_scores)
    np.testing.assert_allclose(score[:, 0], side.expert_scores[..., 0] @ best, atol=1e-5)
    assert torch.equal(shown, mixture.shares.expand(300, 3, 1))


def test_an_expert_that_is_not_heard_has_no_weight_at_all() -> None:
    side = _side(300, 0)
    scores = side.expert_scores.clone()
    scores[:, 2] = -side.mos
    against = replace(side, expert_scores=scores)
    assert constant_mixture(against, 1, True, EVERY).shares[2, 0] == 0
    only_first = constant_mixture(side, 1, True, slice(0, 1))
    assert only_first.shares[:, 0].tolist() == [1, 0, 0]


@pytest.mark.parametrize("gate", ["softmax", "linear"])
def test_a_gate_is_learnt_where_images_differ_in_who_knows(gate: str) -> None:
    mixture = _fit(gate=gate)
    test = _side(400, 2)
    constant = constant_mixture(_side(500, 0), 1, True, EVERY)
    assert mixture.epochs[0] > 0
    assert _error(mixture, test) < 0.7 * _error(constant, test)
    weights = mixture.weigh(test.components)[:, 0, 0]
    first = test.components[:, 0] > 0
    assert weights[first].mean() - weights[~first].mean() > 0.5
    if gate == "softmax":
        torch.testing.assert_close(mixture.weigh(test.components).sum(dim=1), torch.ones(400, 1))


@pytest.mark.parametrize("seed", range(3))
def test_noise_leaves_the_mixture_constant(seed: int) -> None:
    train, val = _side(500, 2 * seed, useful=False), _side(200, 2 * seed + 1, useful=False)
    constant = constant_mixture(train, 1, True, EVERY)
    kept, curve = train_gate(constant, train, val, Fit())
    assert kept.epochs.tolist() == [0]
    assert torch.equal(kept.weigh(val.components), constant.shares.expand(200, 3, 1))
    assert [row["epoch"] for row in curve][:2] == [0, 10]


@pytest.mark.parametrize("sides", [(59, 200), (500, 19)])
def test_too_few_images_leave_the_mixture_constant(sides: tuple[int, int]) -> None:
    assert _fit(train=sides[0], val=sides[1]).epochs.tolist() == [0]


def test_each_target_has_a_gate_of_its_own() -> None:
    """One that gains keeps its gate, whatever the other does."""
    sides = []
    for count, seed in ((500, 0), (200, 1)):
        useful, noise = _side(count, seed), _side(count, seed, useful=False)
        sides.append(
            replace(
                useful,
                expert_scores=torch.cat([useful.expert_scores, noise.expert_scores], dim=2),
                mos=torch.cat([useful.mos, noise.mos], dim=1),
            )
        )
    constant = constant_mixture(sides[0], 1, True, EVERY)
    both = train_gate(constant, *sides, Fit())[0]
    assert both.epochs[0] > 0
    assert both.epochs[1] == 0
    assert torch.equal(both.gate[..., 1], torch.zeros(KEPT, 3))


def test_data_sets_have_lines_of_their_own() -> None:
    """The second's MOS is half as wide and a deviation higher than the experts say."""
    side = _side(400, 0)
    dataset = torch.arange(400) % 2
    mos = torch.where(dataset[:, None] == 0, side.mos, 0.5 * side.mos + 1)
    expert_scores = side.mos[:, None].repeat(1, 2, 1)
    joined = replace(side, expert_scores=expert_scores, mos=mos, dataset=dataset)
    mixture = constant_mixture(joined, 2, True, EVERY)
    common = mixture.mix(joined.components, joined.expert_scores)[0]
    for number in (0, 1):
        rows = dataset == number
        torch.testing.assert_close(
            mixture.on_scale(common[rows], number), mos[rows], atol=1e-3, rtol=1e-3
        )
    torch.testing.assert_close(mixture.on_scale(common, dataset), mos, atol=1e-3, rtol=1e-3)
