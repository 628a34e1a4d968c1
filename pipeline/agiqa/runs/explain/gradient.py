"""How the score of the `light` preset moves with each number of the visual features.

The mixture's own path: projection, the visual expert's kernel ridge and correction, the gate; the
semantic vectors stay as they are. The mean over splits and members, as the score is: the run's
first target, on the scale of its first data set.
"""

import numpy as np
import torch
from torch import Tensor

from agiqa.stage2.light.ensemble import Ensemble, SplitModel, project
from agiqa.stage2.light.kernel import KernelRidge


def score_gradient(ensemble: Ensemble, visual: np.ndarray, semantic: np.ndarray) -> np.ndarray:
    """Derivatives of the scores, on the MOS scale, by the visual features.

    Args:
        ensemble: of the preset light.
        visual: vectors `(B, F)`.
        semantic: vectors `(B, P, D)`.

    Returns:
        `(B, F)` float32.
    """
    inputs = project(ensemble.splits, visual, semantic)
    seen = inputs.visual.clone().requires_grad_(True)  # (S, B, k)
    opinions = torch.stack(
        [_opinion(s.kernels[0], seen[place]) for place, s in enumerate(ensemble.splits)]
    )
    opinions = torch.cat([opinions[:, :, None], inputs.opinions[:, :, 1:]], dim=2)
    members, moe = ensemble.members, ensemble.regressors["moe"]
    score = moe(
        *(each.repeat_interleave(members, dim=0) for each in (seen, inputs.semantic, opinions))
    ).score
    first = torch.zeros(score.shape[:2], dtype=torch.long)
    score = moe.on_scale(score, first)[..., 0].unflatten(0, (len(ensemble.splits), members))
    sd = torch.tensor([split.scales.sd[0, 0] for split in ensemble.splits]).float()
    mean = (score.mean(dim=1) * sd[:, None]).mean(dim=0)  # (B,), less a constant
    (by_component,) = torch.autograd.grad(mean.sum(), seen)
    parts = [_back(split, by_component[place]) for place, split in enumerate(ensemble.splits)]
    return np.asarray(np.sum(parts, axis=0))


def _opinion(kernel: KernelRidge, components: Tensor) -> Tensor:
    """The kernel ridge's scores `(B, T)` of components `(B, k)`, as `KernelRidge.predict`."""
    anchors, rows = torch.from_numpy(kernel.anchors).double(), components.double()
    squares = rows.square().sum(dim=1)[:, None] + anchors.square().sum(dim=1)
    distances = squares - 2 * rows @ anchors.T
    return (torch.exp(-kernel.gamma * distances) @ torch.from_numpy(kernel.dual).double()).float()


def _back(split: SplitModel, by_component: Tensor) -> np.ndarray:
    """Derivatives `(B, k)` by a split's components to those `(B, F)` by the features."""
    components = split.visual.components.astype(np.float32)
    return np.asarray((by_component.numpy() @ components.T) / split.visual.scale, dtype=np.float32)
