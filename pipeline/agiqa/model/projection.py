"""Standardise cached vectors and keep their principal components; fitted on the training side."""

from dataclasses import dataclass

import numpy as np
from sklearn.utils.extmath import randomized_svd

from agiqa.model.ridge import Gram

FLOOR = 1e-6  # added to deviations, so that a constant feature stays finite


@dataclass(frozen=True)
class Projection:
    """Affine map from vectors `(N, F)` to components `(N, k)` with unit total deviation."""

    mean: np.ndarray  # (F,)
    scale: np.ndarray  # (F,) standard deviation
    components: np.ndarray  # (F, k) float16, to halve a run: orthonormal columns over a scale

    def standardise(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors `(N, F)` with the training side's mean and deviation taken out."""
        return np.asarray((vectors - self.mean) / self.scale)

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors `(N, F)` to components `(N, k)` in float32."""
        components = self.components.astype(np.float32)
        return np.asarray(self.standardise(vectors) @ components, dtype=np.float32)


def fit_projection(train: np.ndarray, gram: Gram | None, k: int, seed: int) -> Projection:
    """Principal components of the standardised training vectors.

    Args:
        train: vectors `(n, F)`.
        gram: inner products of the standardised vectors, decomposed, where they are at hand; the
            components then follow from its eigenvectors.
        k: components to keep, at most the rank of `train`.
        seed: of the randomised decomposition that is used otherwise.
    """
    mean, scale = train.mean(axis=0), train.std(axis=0) + FLOOR
    centred = (train - mean) / scale
    k = max(1, min(k, len(train) - 1, train.shape[1]))
    if gram is None:
        _, values, rows = randomized_svd(centred, k, n_iter=3, random_state=seed)
        components = rows.T
    else:
        values = np.sqrt(np.maximum(gram.values[: -k - 1 : -1], FLOOR))
        components = centred.T @ (gram.vectors[:, : -k - 1 : -1] / values)
    common = np.sqrt(np.mean(np.square(values)) / len(train))  # deviation of a mean component
    return Projection(mean, scale, (components / common).astype(np.float16))
