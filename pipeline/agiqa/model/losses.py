"""Losses of the `light` preset, one value for each of M regressors on a batch `(M, B)`."""

import torch
from torch import Tensor
from torch.nn import functional


def squared_error(score: Tensor, mos: Tensor) -> Tensor:
    """Mean squared error `(M,)`."""
    return (score - mos).square().mean(dim=1)


def plcc_loss(score: Tensor, mos: Tensor) -> Tensor:
    """1 - PLCC within the batch `(M,)`."""
    a = score - score.mean(dim=1, keepdim=True)
    b = mos - mos.mean(dim=1, keepdim=True)
    return 1 - functional.cosine_similarity(a, b, dim=1)


def rank_loss(score: Tensor, mos: Tensor, sharpness: float = 2.0) -> Tensor:
    """Pairwise logistic ranking loss `(M,)`, each pair weighted by its distance in MOS."""
    gap = score.unsqueeze(2) - score.unsqueeze(1)
    true = mos.unsqueeze(2) - mos.unsqueeze(1)
    wrong = functional.softplus(-sharpness * gap * true.sign())
    return torch.mean(wrong * true.abs(), dim=(1, 2))
