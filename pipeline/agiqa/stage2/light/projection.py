"""Standardise cached vectors and keep their principal components."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from agiqa.core.weight_files import FLOATS
from agiqa.stage2.contract import Expected, of_arrays

FLOOR = 1e-6  # added to deviations, so that a constant feature stays finite
BLOCK = 1024  # images projected at once: bounds the memory of their standardised vectors


@dataclass(frozen=True)
class Projection:
    """Affine map from vectors `(N, F)` to components `(N, k)` with unit total deviation."""

    mean: np.ndarray  # (F,)
    scale: np.ndarray  # (F,) standard deviation
    components: np.ndarray  # (F, k) float16, to halve a run: orthonormal columns over a scale

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors `(N, F)` to components `(N, k)` in float32, a block of them at a time."""
        blocks = (vectors[start : start + BLOCK] for start in range(0, len(vectors), BLOCK))
        parts = [((block - self.mean) / self.scale) @ self.wide for block in blocks]
        return np.concatenate(parts).astype(np.float32, copy=False)

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


def fit_projection(vectors: np.ndarray, k: int) -> Projection:
    """Find the principal components of vectors `(n, F)`, at most as many as their rank.

    Of the matrix of inner products of features or images, whichever is smaller.
    """
    count, width = vectors.shape
    mean, scale = vectors.mean(axis=0), vectors.std(axis=0) + FLOOR
    standardised = (vectors - mean) / scale
    k = max(1, min(k, count - 1, width))
    few = width <= count
    inner = standardised.T @ standardised if few else standardised @ standardised.T
    values, turned = (part.numpy() for part in torch.linalg.eigh(torch.from_numpy(inner)))
    largest = np.sqrt(np.maximum(values[: -k - 1 : -1], FLOOR))
    components = turned[:, : -k - 1 : -1]
    if not few:
        components = standardised.T @ (components / largest)
    common = np.sqrt(np.mean(np.square(largest)) / count)  # deviation of a mean component
    return Projection(mean, scale, (components / common).astype(np.float16))
