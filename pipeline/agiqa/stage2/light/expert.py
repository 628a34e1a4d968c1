"""What all splits share of an expert: the projection of its vector, and the anchors.

Their share is what is large, so a run keeps it once: components of the vector, and those of the
images that the splits' kernel ridges stand on. Found without any score, on the training and
validation sides of all splits together: vectors are standardised, and their principal components
kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from agiqa.core.weight_files import FLOATS
from agiqa.stage2.contract import Expected, of_arrays
from agiqa.stage2.light.kernel import gaussian

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


@dataclass(frozen=True)
class Expert:
    """A vector's projection and anchors."""

    projection: Projection
    anchors: np.ndarray  # (A, k) float16
    gamma: float  # of the kernel

    def components(self, vectors: np.ndarray) -> Tensor:
        """Vectors `(N, F)` to components `(N, k)`."""
        return torch.from_numpy(self.projection.apply(vectors))

    def kernel(self, components: Tensor) -> Tensor:
        """Kernel `(N, A)` of components `(N, k)` and the anchors, in double precision."""
        return gaussian(components.double(), torch.from_numpy(self._wide), self.gamma)

    @cached_property
    def _wide(self) -> np.ndarray:
        """`anchors` in double precision, kept: from float16 each call would take longer.

        No tensor: one that is made while scoring, in inference mode, would bear no gradient later.
        """
        return self.anchors.astype(np.float64)

    def tensors(self) -> dict[str, Tensor]:
        """Name what a run keeps."""
        return self.projection.tensors() | of_arrays(
            {"anchors": self.anchors, "gamma": np.array([self.gamma])}
        )

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Make the expert of `tensors` again."""
        anchors, gamma = tensors["anchors"].numpy(), float(tensors["gamma"])
        return cls(Projection.from_tensors(tensors), anchors, gamma)

    @staticmethod
    def expected(width: int, kept: int, anchors: int) -> Expected:
        """Name the tensors for vectors so wide, so many components and anchors."""
        own: Expected = {"anchors": (FLOATS, (anchors, kept)), "gamma": (FLOATS, (1,))}
        return Projection.expected(width, kept) | own


@dataclass(frozen=True)
class ExpertInputs:
    """N images as the splits' models take them."""

    components: tuple[Tensor, ...]  # of each expert (N, k)
    kernels: tuple[Tensor, ...]  # of each expert (N, A)

    @classmethod
    def of(cls, experts: tuple[Expert, ...], components: tuple[Tensor, ...]) -> Self:
        """Measure how near the anchors are; a gradient by the components may be asked for."""
        pairs = zip(experts, components, strict=True)
        return cls(components, tuple(expert.kernel(own) for expert, own in pairs))

    @property
    def joined(self) -> Tensor:
        """All experts' components side by side."""
        return torch.cat(self.components, dim=1)


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
