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
    train: np.ndarray,
    gram: Gram,
    mos: np.ndarray,
    val: np.ndarray,
    val_mos: np.ndarray,
    alphas: Sequence[float] = ALPHAS,
) -> Ridge:
    """Fit on standardised `train` `(n, F)` and pick the penalty by SRCC on `val` `(m, F)`.

    Args:
        train: standardised features.
        gram: their inner products, decomposed.
        mos: scores of the training side `(n,)`.
        val: standardised features of the validation side.
        val_mos: its scores `(m,)`.
        alphas: penalties to try.
    """
    bias = float(mos.mean())
    turned = gram.vectors.T @ (mos - bias).astype(train.dtype)
    best: tuple[float, Ridge] | None = None
    for alpha in alphas:
        dual = gram.vectors @ (turned / (np.maximum(gram.values, 0) + alpha))
        candidate = Ridge(train.T @ dual.astype(train.dtype), bias, alpha)
        value = srcc(val_mos, candidate.predict(val))
        if best is None or value > best[0]:
            best = (value, candidate)
    assert best is not None, "at least one penalty"
    return best[1]
