"""Ridge regression in its dual form: the baseline that every run is compared with.

With more features than images the dual needs one matrix of inner products, whatever the penalty;
scikit-learn's kernel ridge does the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr
from sklearn.kernel_ridge import KernelRidge

ALPHAS = (300.0, 1e3, 3e3, 1e4, 3e4, 1e5)  # tried in turn; the validation side decides


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
    gram: np.ndarray,
    mos: np.ndarray,
    val: np.ndarray,
    val_mos: np.ndarray,
    alphas: Sequence[float] = ALPHAS,
) -> Ridge:
    """Fit on standardised `train` `(n, F)` and pick the penalty by SRCC on `val` `(m, F)`.

    Args:
        train: standardised features.
        gram: their inner products `(n, n)`.
        mos: scores of the training side `(n,)`.
        val: standardised features of the validation side.
        val_mos: its scores `(m,)`.
        alphas: penalties to try.
    """
    bias = float(mos.mean())
    best: tuple[float, Ridge] | None = None
    for alpha in alphas:
        dual = KernelRidge(alpha=alpha, kernel="precomputed").fit(gram, mos - bias).dual_coef_
        candidate = Ridge((train.T @ dual).astype(np.float32), bias, alpha)
        value = float(spearmanr(candidate.predict(val), val_mos).statistic)
        if best is None or value > best[0]:
            best = (value, candidate)
    assert best is not None, "at least one penalty"
    return best[1]
