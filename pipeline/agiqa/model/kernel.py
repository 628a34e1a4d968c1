"""Kernel ridge regression with a Gaussian kernel, the core of each expert of the `light` preset.

Frozen features lose about .002 SRCC where only a line may be drawn through them; a Gaussian kernel
bends it and still has a closed form. The leave-one-out predictions come from the same solution and
are what the gate is trained on: fitted values would make every expert look right.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agiqa.metrics import plcc, srcc

WIDTH = 0.8  # gamma, over the median squared distance between training images
ALPHAS = (0.1, 0.3, 1.0, 3.0)  # penalties
CHUNK = 4096  # images scored at once: bounds the memory of a kernel


@dataclass(frozen=True)
class KernelRidge:
    """A fitted kernel ridge: one weight for each training image."""

    anchors: np.ndarray  # (n, k) float16, components of the training images
    dual: np.ndarray  # (n,) float32
    gamma: float  # score = sum of dual * exp(-gamma * squared distance)

    def predict(self, components: np.ndarray) -> np.ndarray:
        """Components `(N, k)` to scores `(N,)` in the units of the target it was fitted on.

        In double precision: large weights of both signs cancel, and an image must not score
        otherwise in another batch.
        """
        anchors, dual = self.anchors.astype(np.float64), torch.from_numpy(self.dual).double()
        parts = []
        for start in range(0, len(components), CHUNK):
            rows = components[start : start + CHUNK].astype(np.float64)
            parts.append(_kernel(_squared_distances(rows, anchors), self.gamma) @ dual)
        return np.asarray(torch.cat(parts).float().numpy())


def fit_kernel_ridge(
    train: np.ndarray, target: np.ndarray, alphas: Sequence[float] = ALPHAS
) -> tuple[KernelRidge, np.ndarray]:
    """Fit with the penalty that predicts left-out images best, and the next smaller one.

    The mean of the two is the fit: an image's prompt usually has other images in training, which
    makes leave-one-out a little too sure of a large penalty. On 10 splits of AGIQA-3K this was
    steadier than a choice of width and penalty by the validation side.

    Args:
        train: components `(n, k)`.
        target: scores `(n,)`, centred.
        alphas: penalties to try, ascending.

    Returns:
        The kernel ridge, and its leave-one-out predictions `(n,)`: of each training image from
        all others (Rasmussen and Williams 2006, equation 5.12).
    """
    anchors = train.astype(np.float16)
    rounded = anchors.astype(np.float32)
    distances = _squared_distances(rounded, rounded)
    gamma = WIDTH / max(float(distances.median()), 1e-6)
    kernel = _kernel(distances, gamma)
    wanted = torch.from_numpy(target.astype(np.float32))
    duals, left_out, values = [], [], []
    for alpha in alphas:
        factor = torch.linalg.cholesky(kernel + alpha * torch.eye(len(kernel)))
        duals.append(torch.cholesky_solve(wanted[:, None], factor)[:, 0])
        left_out.append(wanted - duals[-1] / torch.cholesky_inverse(factor).diagonal())
        said = left_out[-1].numpy()
        values.append(srcc(target, said) + plcc(target, said))
    best = int(np.nanargmax(np.nan_to_num(values, nan=-np.inf)))
    pair = slice(max(0, best - 1), best + 1)
    dual, said = (torch.stack(each[pair]).mean(dim=0).numpy() for each in (duals, left_out))
    return KernelRidge(anchors, dual, gamma), said


def _squared_distances(rows: np.ndarray, anchors: np.ndarray) -> Tensor:
    """Squared Euclidean distances `(N, n)` in the precision of both."""
    ours, theirs = torch.from_numpy(rows), torch.from_numpy(anchors)
    squares = ours.square().sum(dim=1)[:, None] + theirs.square().sum(dim=1)
    return torch.addmm(squares, ours, theirs.T, alpha=-2).clamp_min(0)


def _kernel(distances: Tensor, gamma: float) -> Tensor:
    return torch.exp(-gamma * distances)
