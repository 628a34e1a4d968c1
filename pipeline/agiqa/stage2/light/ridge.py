"""Ridge regression: the baseline that every run is compared with.

On the components of the experts' vectors, as they are all but what a run drops of a vector. The
eigenvectors of the components' products give the solution for every penalty at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from agiqa.core.weight_files import FLOATS
from agiqa.data.metrics import srcc
from agiqa.stage2.contract import Expected, of_arrays
from agiqa.stage2.light.agreement import measured

ALPHAS = (100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5)  # tried in turn; the validation side decides


@dataclass(frozen=True)
class Ridge:
    """A fitted ridge: for each target weights on components."""

    weights: np.ndarray  # (k, T)
    bias: np.ndarray  # (T,)
    alpha: np.ndarray  # (T,) the penalties

    def predict(self, components: np.ndarray) -> np.ndarray:
        """Components `(N, k)` to scores `(N, T)` in the units of the targets."""
        return np.asarray(components @ self.weights + self.bias)

    def tensors(self) -> dict[str, Tensor]:
        """Name what a run keeps."""
        return of_arrays({"weights": self.weights, "bias_alpha": np.stack([self.bias, self.alpha])})

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Make the ridge of `tensors` again."""
        return cls(tensors["weights"].numpy(), *tensors["bias_alpha"].numpy())

    @staticmethod
    def expected(width: int, targets: int) -> Expected:
        """Name the tensors for so many components and T targets."""
        return {"weights": (FLOATS, (width, targets)), "bias_alpha": (FLOATS, (2, targets))}


def fit_ridge(
    train: np.ndarray,
    target: np.ndarray,
    val: np.ndarray,
    val_target: np.ndarray,
    val_dataset: np.ndarray | None = None,
    alphas: Sequence[float] = ALPHAS,
) -> Ridge:
    """Fit on the training side and pick each target's penalty by SRCC on the validation side.

    Args:
        train: features `(n, k)`.
        target: scores of the training side `(n, T)`.
        val: the same features of the validation side `(m, k)`.
        val_target: its scores `(m, T)`.
        val_dataset: which data set each of its images is of `(m,)`; None: all of one. With
            several, the mean of their SRCCs counts.
        alphas: penalties to try.
    """
    centre, mean = train.mean(axis=0), target.mean(axis=0)
    centred = (train - centre).astype(np.float64)
    values, vectors = (
        part.numpy() for part in torch.linalg.eigh(torch.from_numpy(centred.T @ centred))
    )
    turned = vectors.T @ (centred.T @ (target - mean))  # (k, T)
    shrunk = [turned / (np.maximum(values, 0) + alpha)[:, None] for alpha in alphas]
    weights = np.stack([vectors @ part for part in shrunk])  # (A, k, T)
    measures = [measured(val_target, (val - centre) @ own, val_dataset, srcc) for own in weights]
    best = np.nanargmax(np.nan_to_num(measures, nan=-np.inf), axis=0)
    chosen = np.stack([weights[row, :, t] for t, row in enumerate(best)], axis=1)
    return Ridge(chosen.astype(np.float32), mean - centre @ chosen, np.asarray(alphas)[best])
