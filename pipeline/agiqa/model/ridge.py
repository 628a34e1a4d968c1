"""Ridge regression in its dual form: the baseline that every run is compared with.

With more features than images the dual needs one matrix of inner products; its eigenvectors give
the solution for every penalty at once, and the principal components with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from agiqa.metrics import srcc

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
    """A fitted ridge: weights on standardised features."""

    weights: np.ndarray  # (F,)
    bias: float  # mean MOS of the training side
    alpha: float

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Standardised features `(N, F)` to scores `(N,)`."""
        return np.asarray(features @ self.weights + self.bias)


def fit_ridge(
    train: Sequence[np.ndarray],
    gram: Gram,
    mos: np.ndarray,
    val: Sequence[np.ndarray],
    val_mos: np.ndarray,
    alphas: Sequence[float] = ALPHAS,
) -> Ridge:
    """Fit on the training side and pick the penalty by SRCC on the validation side.

    Args:
        train: standardised features side by side, each `(n, F_i)`.
        gram: inner products of the whole, decomposed.
        mos: scores of the training side `(n,)`.
        val: the same features of the validation side, each `(m, F_i)`.
        val_mos: its scores `(m,)`.
        alphas: penalties to try.
    """
    bias = float(mos.mean())
    turned = gram.vectors.T @ (mos - bias).astype(gram.vectors.dtype)
    shrunk = [turned / (np.maximum(gram.values, 0) + alpha) for alpha in alphas]
    duals = (gram.vectors @ np.stack(shrunk, axis=1)).astype(np.float32)  # (n, alphas)
    parts = [part.T @ duals for part in train]
    predictions = sum((part @ weights for part, weights in zip(val, parts, strict=True)), bias)
    values = [srcc(val_mos, prediction) for prediction in np.transpose(predictions)]
    best = int(np.nanargmax(np.nan_to_num(values, nan=-np.inf)))
    return Ridge(np.concatenate([weights[:, best] for weights in parts]), bias, alphas[best])
