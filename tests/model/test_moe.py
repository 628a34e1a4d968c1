"""The mixture of experts: starts as a ridge, stacks without mixing, gates as it says."""

import pytest
import torch

from agiqa.model.moe import MixtureOfExperts

MODELS, BATCH, VISUAL, SEMANTIC, PROMPTS = 4, 7, 10, 5, 2


def _build(gate: str, noise: float = 0.0, dropout: float = 0.0) -> MixtureOfExperts:
    torch.manual_seed(0)
    return MixtureOfExperts(MODELS, VISUAL, SEMANTIC, PROMPTS, 6, gate, dropout, noise)


@pytest.fixture
def visual() -> torch.Tensor:
    return torch.randn(MODELS, BATCH, VISUAL, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def semantic() -> torch.Tensor:
    return torch.randn(MODELS, BATCH, PROMPTS, SEMANTIC, generator=torch.Generator().manual_seed(2))


def _step(moe: MixtureOfExperts, visual: torch.Tensor, semantic: torch.Tensor) -> None:
    optimiser = torch.optim.Adam(moe.parameters(), lr=0.05)
    for _ in range(5):
        optimiser.zero_grad()
        (
            moe(visual, semantic).score - visual[..., 0] * semantic[..., 0, 0]
        ).square().sum().backward()
        optimiser.step()


@pytest.mark.parametrize("gate", ["softmax", "linear"])
def test_starts_as_the_regression_it_is_given(
    gate: str, visual: torch.Tensor, semantic: torch.Tensor
) -> None:
    moe = _build(gate).eval()
    weights = torch.randn(VISUAL + PROMPTS * SEMANTIC)
    moe.warm_start(slice(1, 3), weights)
    expected = torch.cat([visual, semantic.flatten(2)], dim=-1) @ weights
    score, even, _ = moe(visual, semantic)
    torch.testing.assert_close(score[1:3], expected[1:3], atol=1e-5, rtol=1e-5)
    assert torch.equal(score[[0, 3]], torch.zeros(2, BATCH))
    torch.testing.assert_close(even, torch.full((MODELS, BATCH, 3), 1 / 3))


@pytest.mark.parametrize("gate", ["softmax", "linear"])
def test_the_score_is_the_gated_sum_of_the_experts(
    gate: str, visual: torch.Tensor, semantic: torch.Tensor
) -> None:
    moe = _build(gate)
    _step(moe, visual, semantic)
    score, weights, quality_map = moe.eval()(visual, semantic)
    vectors = [visual, semantic[:, :, 0], semantic[:, :, 1]]
    opinions = torch.stack([e(v) for e, v in zip(moe.experts, vectors, strict=True)], dim=-1)
    torch.testing.assert_close(score, (weights * opinions).sum(-1))
    sums = weights.sum(-1)
    assert torch.allclose(sums, torch.ones_like(sums), atol=1e-5) == (gate == "softmax")
    assert weights.std() > 0.001
    assert quality_map is None


def test_stacked_models_do_not_touch_each_other(
    visual: torch.Tensor, semantic: torch.Tensor
) -> None:
    moe = _build("softmax")
    _step(moe, visual, semantic)
    before = moe.eval()(visual, semantic).score
    changed = visual.clone()
    changed[2] += 1
    after = moe(changed, semantic).score
    same = [0, 1, 3]
    assert torch.equal(before[same], after[same])
    assert not torch.equal(before[2], after[2])


def test_noise_and_dropout_are_for_training_only(
    visual: torch.Tensor, semantic: torch.Tensor
) -> None:
    moe = _build("softmax", noise=0.5, dropout=0.5)
    _step(moe, visual, semantic)
    assert not torch.equal(moe(visual, semantic).score, moe(visual, semantic).score)
    moe.eval()
    assert torch.equal(moe(visual, semantic).score, moe(visual, semantic).score)


def test_every_parameter_has_one_group() -> None:
    moe = _build("softmax")
    slow, fast = moe.groups(lr=1.0, linear_lr=0.1, weight_decay=0.5)
    counted = len(slow["params"]) + len(fast["params"])  # type: ignore[arg-type]
    assert counted == len(list(moe.parameters()))
    assert (slow["lr"], slow["weight_decay"]) == (0.1, 0.0)
    assert len(slow["params"]) == 2 * (1 + PROMPTS)  # type: ignore[arg-type]
