"""The mixture of experts: starts as it is told, stacks without mixing, gates as it says."""

import pytest
import torch

from agiqa.stage2.light.moe import MixtureOfExperts

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


@pytest.fixture
def expert_scores() -> torch.Tensor:
    return torch.randn(MODELS, BATCH, 1 + PROMPTS, 1, generator=torch.Generator().manual_seed(3))


def _step(
    moe: MixtureOfExperts, visual: torch.Tensor, semantic: torch.Tensor, expert_scores: torch.Tensor
) -> None:
    optimiser = torch.optim.Adam(moe.parameters(), lr=0.05)
    for _ in range(5):
        optimiser.zero_grad()
        (
            moe(visual, semantic, expert_scores).score[..., 0]
            - visual[..., 0] * semantic[..., 0, 0]
        ).square().sum().backward()
        optimiser.step()


@pytest.mark.parametrize("gate", ["softmax", "linear"])
def test_starts_as_the_mixture_it_is_given(
    gate: str, visual: torch.Tensor, semantic: torch.Tensor, expert_scores: torch.Tensor
) -> None:
    moe = _build(gate).eval()
    mixture = torch.tensor([0.9, 0.2, 0.1])
    moe.warm_start(slice(1, 3), mixture[:, None], torch.zeros(1, 1))
    score, weights = moe(visual, semantic, expert_scores)
    torch.testing.assert_close(
        score[1:3, :, 0], expert_scores[1:3, ..., 0] @ mixture, atol=1e-5, rtol=1e-5
    )
    shares = (mixture / 1.2).expand(2, BATCH, 3)
    torch.testing.assert_close(weights[1:3, ..., 0], shares, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("gate", ["softmax", "linear"])
def test_the_score_is_the_gated_sum_of_the_experts(
    gate: str, visual: torch.Tensor, semantic: torch.Tensor, expert_scores: torch.Tensor
) -> None:
    moe = _build(gate)
    _step(moe, visual, semantic, expert_scores)
    score, weights = moe.eval()(visual, semantic, expert_scores)
    vectors = [visual, semantic[:, :, 0], semantic[:, :, 1]]
    added = torch.stack([c(v) for c, v in zip(moe.corrections, vectors, strict=True)], dim=-2)
    assert added.abs().max() > 0.001
    torch.testing.assert_close(
        score, moe.scale[:, None] * (weights * (expert_scores + added)).sum(-2)
    )
    sums = weights.sum(-2)
    assert torch.allclose(sums, torch.ones_like(sums), atol=1e-5) == (gate == "softmax")
    assert weights.std() > 0.001


def test_stacked_models_do_not_touch_each_other(
    visual: torch.Tensor, semantic: torch.Tensor, expert_scores: torch.Tensor
) -> None:
    moe = _build("softmax")
    _step(moe, visual, semantic, expert_scores)
    before = moe.eval()(visual, semantic, expert_scores).score
    changed = visual.clone()
    changed[2] += 1
    after = moe(changed, semantic, expert_scores).score
    same = [0, 1, 3]
    assert torch.equal(before[same], after[same])
    assert not torch.equal(before[2], after[2])


def test_noise_and_dropout_are_for_training_only(
    visual: torch.Tensor, semantic: torch.Tensor, expert_scores: torch.Tensor
) -> None:
    moe = _build("softmax", noise=0.5, dropout=0.5)
    _step(moe, visual, semantic, expert_scores)
    assert not torch.equal(
        moe(visual, semantic, expert_scores).score, moe(visual, semantic, expert_scores).score
    )
    moe.eval()
    assert torch.equal(
        moe(visual, semantic, expert_scores).score, moe(visual, semantic, expert_scores).score
    )


def test_targets_share_the_experts_layer_and_have_gates_of_their_own(
    visual: torch.Tensor, semantic: torch.Tensor, expert_scores: torch.Tensor
) -> None:
    torch.manual_seed(0)
    moe = MixtureOfExperts(MODELS, VISUAL, SEMANTIC, PROMPTS, 6, "softmax", 0.0, 0.0, targets=2)
    two = torch.cat([expert_scores, -expert_scores], dim=-1)
    mixture = torch.tensor([[0.6, 0.1], [0.3, 0.2], [0.1, 0.7]])
    moe.warm_start(slice(0, MODELS), mixture, torch.zeros(1, 2))
    score, gate = moe(visual, semantic, two)
    assert score.shape == (MODELS, BATCH, 2)
    assert gate.shape == (MODELS, BATCH, 1 + PROMPTS, 2)
    torch.testing.assert_close(gate[0, 0], mixture)
    torch.testing.assert_close(score[..., 1], -(expert_scores[..., 0] @ mixture[:, 1]))
    optimiser = torch.optim.Adam(moe.parameters(), lr=0.05)
    for _ in range(2):  # one target's loss alone: the shared layer moves, the other's gate not
        optimiser.zero_grad()
        (moe(visual, semantic, two).score[..., 0] - visual[..., 0]).square().sum().backward()
        assert moe.gate.bias.grad is not None
        gradient = moe.gate.bias.grad.unflatten(-1, (1 + PROMPTS, 2))
        assert gradient[..., 0].abs().max() > 0
        assert gradient[..., 1].abs().max() == 0
        optimiser.step()
    hidden = moe.corrections[0].hidden.weight
    assert hidden.grad is not None
    assert hidden.grad.abs().max() > 0


def test_each_data_set_reads_the_common_scale_on_a_rising_line(
    visual: torch.Tensor, semantic: torch.Tensor, expert_scores: torch.Tensor
) -> None:
    torch.manual_seed(0)
    moe = MixtureOfExperts(MODELS, VISUAL, SEMANTIC, PROMPTS, 6, "softmax", 0.0, 0.0, datasets=3)
    offset = torch.tensor([[0.0], [2.0], [-1.0]])
    moe.warm_start(slice(0, MODELS), torch.full((3, 1), 1 / 3), offset)
    score = moe(visual, semantic, expert_scores).score
    dataset = torch.arange(BATCH).expand(MODELS, BATCH) % 3
    torch.testing.assert_close(moe.on_scale(score, dataset), score + offset[dataset])
    with torch.no_grad():
        moe.log_slope.copy_(torch.randn_like(moe.log_slope))
    for each in range(3):
        read = moe.on_scale(score, torch.full((MODELS, BATCH), each))
        assert torch.equal(read.argsort(1), score.argsort(1))  # the ranking is everybody's
    alone = MixtureOfExperts(1, VISUAL, SEMANTIC, PROMPTS, 6, "softmax", 0.0, 0.0)
    assert "offset" not in alone.state_dict()
