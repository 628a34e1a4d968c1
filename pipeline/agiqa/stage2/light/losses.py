"""Losses of the `light` preset, one value for each of M regressors on a batch `(M, B, T)`.

T targets count alike. Where a batch holds images of several data sets, the mask `same` `(M, B, B)`
says which pairs are of one: scores by two panels of raters cannot be ranked against each other,
and a correlation across them would be that of their means.
"""

import torch
from torch import Tensor
from torch.nn import functional


def squared_error(score: Tensor, mos: Tensor) -> Tensor:
    """Mean squared error `(M,)`."""
    return (score - mos).square().mean(dim=(1, 2))


def plcc_loss(score: Tensor, mos: Tensor, same: Tensor | None = None) -> Tensor:
    """1 - PLCC within the batch `(M,)`; with `same`, of values less their data set's mean."""
    if same is None:
        a = score - score.mean(dim=1, keepdim=True)
        b = mos - mos.mean(dim=1, keepdim=True)
    else:
        share = same / same.sum(dim=2, keepdim=True)
        a, b = score - share @ score, mos - share @ mos
    return (1 - functional.cosine_similarity(a, b, dim=1)).mean(dim=1)


def rank_loss(
    score: Tensor, mos: Tensor, same: Tensor | None = None, sharpness: float = 2.0
) -> Tensor:
    """Pairwise logistic ranking loss `(M,)`, each pair weighted by its distance in MOS."""
    gap = score.unsqueeze(2) - score.unsqueeze(1)
    true = mos.unsqueeze(2) - mos.unsqueeze(1)
    wrong = functional.softplus(-sharpness * gap * true.sign()) * true.abs()
    if same is None:
        return torch.mean(wrong, dim=(1, 2, 3))
    return (wrong.mean(dim=3) * same).sum(dim=(1, 2)) / same.sum(dim=(1, 2))
