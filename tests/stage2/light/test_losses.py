"""Losses: one value a regressor, smallest where they should be, no gradient leaks between them."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from agiqa.stage2.light.losses import plcc_loss, rank_loss, squared_error


def _pair(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 16, 2, generator=generator), torch.randn(3, 16, 2, generator=generator)


@given(st.integers(0, 1000))
def test_plcc_loss_is_one_minus_pearson_and_ignores_scale(seed: int) -> None:
    score, mos = _pair(seed)
    pearson = torch.tensor(
        [
            [torch.corrcoef(torch.stack([a, b]))[0, 1] for a, b in zip(s.T, m.T, strict=True)]
            for s, m in zip(score, mos, strict=True)
        ]
    ).mean(1)  # over the targets
    torch.testing.assert_close(plcc_loss(score, mos), 1 - pearson, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plcc_loss(2 * score + 3, mos), 1 - pearson, atol=1e-4, rtol=1e-4)


@given(st.integers(0, 1000))
def test_rank_loss_prefers_the_right_order(seed: int) -> None:
    _, mos = _pair(seed)
    assert (rank_loss(mos, mos) < rank_loss(torch.zeros_like(mos), mos)).all()
    assert (rank_loss(torch.zeros_like(mos), mos) < rank_loss(-mos, mos)).all()


def test_each_regressor_has_its_own_loss() -> None:
    score, mos = _pair(0)
    score.requires_grad_(True)
    for loss in (squared_error, plcc_loss, rank_loss):
        values = loss(score, mos)
        assert values.shape == (3,)
        (gradient,) = torch.autograd.grad(values[1], score, retain_graph=True)
        assert gradient[1].abs().sum() > 0
        assert gradient[[0, 2]].abs().sum() == 0


def test_data_sets_are_neither_ranked_nor_correlated_across() -> None:
    """Raising one data set's scores moves no loss with a mask, and each of them without."""
    score, mos = _pair(1)
    dataset = torch.arange(16).expand(3, 16) % 2
    same = (dataset.unsqueeze(2) == dataset.unsqueeze(1)).float()
    raised = score + 3.0 * dataset.unsqueeze(2)
    for loss in (plcc_loss, rank_loss):
        torch.testing.assert_close(loss(raised, mos, same), loss(score, mos, same))
        assert (loss(raised, mos) - loss(score, mos)).abs().min() > 0.01
    halves = [rank_loss(score[:, d::2], mos[:, d::2]) for d in (0, 1)]
    torch.testing.assert_close(rank_loss(score, mos, same), (halves[0] + halves[1]) / 2)


def test_one_data_set_needs_no_mask() -> None:
    score, mos = _pair(2)
    same = torch.ones(3, 16, 16)
    for loss in (plcc_loss, rank_loss):
        torch.testing.assert_close(loss(score, mos, same), loss(score, mos))
