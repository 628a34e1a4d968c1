"""What all splits share of an expert: the projection of its vector, and the anchors.

Their share is what is large, so a run keeps it once: components of the vector, and those of the
images that the splits' kernel ridges stand on. Found without any score, on the training and
validation sides of all splits together.
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
from agiqa.stage2.light.projection import Projection


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
