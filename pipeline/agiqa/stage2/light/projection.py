"""Standardise cached vectors and keep their principal components; fitted on the training side."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from torch import Tensor

from agiqa.core.weight_files import FLOATS
from agiqa.stage2.contract import Expected, of_arrays
from agiqa.stage2.light.ridge import Gram, decompose

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
        return self.project(self.standardise(vectors))

    def project(self, standardised: np.ndarray) -> np.ndarray:
        """Standardised vectors `(N, F)` to components `(N, k)` in float32."""
        return np.asarray(standardised @ self.wide, dtype=np.float32)

    @cached_property
    def wide(self) -> np.ndarray:
        """`components` in float32, kept: to widen them at each call costs more than the product."""
        return self.components.astype(np.float32, copy=False)

    def tensors(self) -> dict[str, Tensor]:
        """Name what a run keeps."""
        return of_arrays({"mean": self.mean, "scale": self.scale, "components": self.components})

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Make the projection of `tensors` again."""
        return cls(*(tensors[name].numpy() for name in ("mean", "scale", "components")))

    @staticmethod
    def expected(width: int, kept: int) -> Expected:
        """Name the tensors for vectors so wide, of which so many components are kept."""
        vector = (FLOATS, (width,))
        return {"mean": vector, "scale": vector, "components": (FLOATS, (width, kept))}


def moments(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure mean and deviation `(F,)` of vectors `(n, F)`, the latter above zero."""
    return train.mean(axis=0), train.std(axis=0) + FLOOR


def fit_projection(
    standardised: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
    k: int,
    gram: Gram | None = None,
) -> Projection:
    """Find the principal components of the standardised training vectors.

    Args:
        standardised: `(n, F)`, the training vectors less `mean`, over `scale`.
        mean: `(F,)`.
        scale: `(F,)`.
        k: components to keep, at most the rank of the vectors.
        gram: inner products `(n, n)` of the standardised vectors, decomposed, if at hand.
    """
    count, width = standardised.shape
    k = max(1, min(k, count - 1, width))
    if gram is None and width <= count:
        covariance = decompose(standardised.T @ standardised)
        values, components = np.sqrt(_largest(covariance, k)), covariance.vectors[:, : -k - 1 : -1]
    else:
        gram = gram or decompose(standardised @ standardised.T)
        values = np.sqrt(_largest(gram, k))
        components = standardised.T @ (gram.vectors[:, : -k - 1 : -1] / values)
    common = np.sqrt(np.mean(np.square(values)) / count)  # deviation of a mean component
    return Projection(mean, scale, (components / common).astype(np.float16))


def _largest(gram: Gram, k: int) -> np.ndarray:
    """The k largest eigenvalues, descending, none below FLOOR."""
    return np.asarray(np.maximum(gram.values[: -k - 1 : -1], FLOOR))
