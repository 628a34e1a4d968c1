"""Ridge regression in its dual form: the baseline that every run is compared with.

With more features than images the dual needs one matrix of inner products; its eigenvectors give
the solution for every penalty at once, and the principal components with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from agiqa.model.agreement import rank_agreement

ALPHAS = (100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5)  # tried in turn; the validation side decides


@dataclass(frozen=True)
class Gram:
    """Eigenvalues (ascending) and eigenvectors (columns) of inner products `(n, n)`."""

    values: np.ndarray  # (n,)
    vectors: np.ndarray  # (n, n)


def decompose(inner: np.ndarray) -> Gram:
    """Eigendecomposition of a matrix of inner products `(n, n)`."""
    values, vectors = torch.linalg.eigh(torch.from_numpy(np.ascontiguousarray(inner)))
    return Gram(values.numpy(), vectors.numpy())


@dataclass(frozen=True)
class Ridge:
    """A fitted ridge: for each target weights on standardised features."""

    weights: np.ndarray  # (F, T)
    bias: np.ndarray  # (T,) mean target of the training side
    alpha: np.ndarray  # (T,) the penalties

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Standardised features `(N, F)` to scores `(N, T)` in the units of the targets."""
        return np.asarray(features @ self.weights + self.bias)


def fit_ridge(
    train: Sequence[np.ndarray],
    gram: Gram,
    target: np.ndarray,
    val: Sequence[np.ndarray],
    val_target: np.ndarray,
    val_dataset: np.ndarray | None = None,
    alphas: Sequence[float] = ALPHAS,
) -> Ridge:
    """Fit on the training side and pick each target's penalty by SRCC on the validation side.

    Args:
        train: standardised features side by side, each `(n, F_i)`.
        gram: inner products of the whole, decomposed.
        target: scores of the training side `(n, T)`.
        val: the same features of the validation side, each `(m, F_i)`.
        val_target: its scores `(m, T)`.
        val_dataset: which data set each of its images is of `(m,)`; None: all of one. With
            several, the mean of their SRCCs counts.
        alphas: penalties to try.
    """
    bias = target.mean(axis=0)
    turned = gram.vectors.T @ (target - bias).astype(gram.vectors.dtype)
    shrunk = [turned / (np.maximum(gram.values, 0) + alpha)[:, None] for alpha in alphas]
    duals = (gram.vectors @ np.concatenate(shrunk, axis=1)).astype(np.float32)  # (n, alphas * T)
    parts = [part.T @ duals for part in train]
    said = sum(part @ weights for part, weights in zip(val, parts, strict=True))
    count = target.shape[1]
    values = [
        rank_agreement(val_target, said[:, place * count : (place + 1) * count], val_dataset)
        for place in range(len(alphas))
    ]
    best = np.nanargmax(np.nan_to_num(values, nan=-np.inf), axis=0)
    columns = best * count + np.arange(count)
    weights = np.concatenate([part[:, columns] for part in parts])
    return Ridge(weights, bias, np.asarray(alphas)[best])
