"""One split before the regressors: its experts, its ridges, and what the regressors see of images.

An expert is a projection and a kernel ridge on one vector: the visual one first, then one for each
semantic vector. `closed_forms` fits them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from agiqa.core.weight_files import FLOATS
from agiqa.stage2.contract import Expected, Header, inside, matrix_shape, nested, of_arrays
from agiqa.stage2.light.kernel import KernelRidge
from agiqa.stage2.light.moe import Sizes
from agiqa.stage2.light.projection import Projection
from agiqa.stage2.light.ridge import Ridge
from agiqa.stage2.targets import Scales

# The baselines, and which of the experts' vectors each of them sees.
RIDGES = {"ridge": slice(None), "ridge_visual": slice(0, 1), "ridge_semantic": slice(1, None)}


@dataclass(frozen=True)
class Expert:
    """What is fitted on one vector of a split."""

    projection: Projection
    kernel: KernelRidge  # on the projection's components

    def see(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vectors `(N, F)` to components `(N, k)` and scores `(N, T)`."""
        components = self.projection.apply(vectors)
        return components, self.kernel.predict(components)


@dataclass(frozen=True)
class SplitModel:
    """What is fitted on one split in closed form, in units of its training deviations."""

    seed: int
    experts: tuple[Expert, ...]  # visual, then each prompt
    ridges: Mapping[str, Ridge]  # by RIDGES
    scales: Scales  # of the training side

    def see(
        self, visual: np.ndarray, semantic: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Visual `(N, F)` and semantic `(N, P, D)` vectors to what the regressors see.

        Returns:
            Components `(N, k)` and `(N, P, k')`, and scores of the kernel ridges `(N, E, T)`.
        """
        pairs = zip(self.experts, [visual, *np.moveaxis(semantic, 1, 0)], strict=True)
        components, scores = zip(*(expert.see(vectors) for expert, vectors in pairs), strict=True)
        return components[0], np.stack(components[1:], axis=1), np.stack(scores, axis=1)

    def ridge_scores(self, name: str, visual: np.ndarray, semantic: np.ndarray) -> np.ndarray:
        """Scores `(N, T)` of a baseline for visual `(N, F)` and semantic `(N, P, D)` vectors."""
        pairs = list(zip(self.experts, [visual, *np.moveaxis(semantic, 1, 0)], strict=True))
        seen = [expert.projection.standardise(vectors) for expert, vectors in pairs[RIDGES[name]]]
        return self.ridges[name].predict(np.concatenate(seen, axis=1))

    def tensors(self) -> dict[str, Tensor]:
        """Name what a run keeps."""
        named = of_arrays({"mos": np.stack([self.scales.mean, self.scales.sd])})
        for place, expert in enumerate(self.experts):
            named |= nested(_projection_name(place), expert.projection.tensors())
            named |= nested(f"kernel.{place}", expert.kernel.tensors())
        for name, ridge in self.ridges.items():
            named |= nested(name, ridge.tensors())
        return named

    @classmethod
    def from_tensors(cls, seed: int, tensors: Mapping[str, Tensor], experts: int) -> Self:
        """Make the split of `tensors` again, of so many experts."""
        return cls(
            seed,
            tuple(
                Expert(
                    Projection.from_tensors(inside(_projection_name(place), tensors)),
                    KernelRidge.from_tensors(inside(f"kernel.{place}", tensors)),
                )
                for place in range(experts)
            ),
            {name: Ridge.from_tensors(inside(name, tensors)) for name in RIDGES},
            Scales(*tensors["mos"].numpy()),
        )

    @staticmethod
    def expected(header: Header, place: int, experts: int, targets: int, datasets: int) -> Expected:
        """Name the tensors of the split at `place`; the first split says how wide all are.

        Raises:
            ValueError: a tensor that says how large others are is missing, empty or no matrix.
        """
        widths, named = [], {"mos": (FLOATS, (2, datasets, targets))}
        for expert in range(experts):
            part, kernel = _projection_name(expert), f"kernel.{expert}"
            width, kept = matrix_shape(header, f"split.0.{part}.components")
            anchors, _ = matrix_shape(header, f"split.{place}.{kernel}.anchors")
            named |= nested(part, Projection.expected(width, kept))
            named |= nested(kernel, KernelRidge.expected(anchors, kept, targets))
            widths.append(width)
        for name, seen in RIDGES.items():
            named |= nested(name, Ridge.expected(sum(widths[seen]), targets))
        return nested(f"split.{place}", named)


def _projection_name(place: int) -> str:
    """Name an expert's projection in a run's weights."""
    return f"semantic.{place - 1}" if place else "visual"


@dataclass(frozen=True)
class Inputs:
    """What the regressors see of N images under every split's experts."""

    visual: Tensor  # (S, N, k)
    semantic: Tensor  # (S, N, P, k')
    expert_scores: Tensor  # (S, N, E, T), in units of the training deviation

    @classmethod
    def of(cls, splits: Sequence[SplitModel], visual: np.ndarray, semantic: np.ndarray) -> Self:
        """Bring visual `(N, F)` and semantic `(N, P, D)` vectors through each split's experts."""
        seen = [split.see(visual, semantic) for split in splits]
        return cls(*(torch.from_numpy(np.stack(part)) for part in zip(*seen, strict=True)))

    def take(self, split: Tensor, rows: Tensor, variant: str) -> dict[str, Tensor | None]:
        """Inputs of M regressors for a variant: `split` `(M, 1)` and `rows` `(M, B)` pick them."""
        experts = {"visual": slice(0, 1), "semantic": slice(1, None)}.get(variant, slice(None))
        return {
            "visual": self.visual[split, rows] if variant != "semantic" else None,
            "semantic": self.semantic[split, rows] if variant != "visual" else None,
            "expert_scores": self.expert_scores[split, rows][..., experts, :],
        }

    def sizes(self, datasets: int) -> Sizes:
        """Sizes of the regressors that take these."""
        splits, _, prompts, semantic = self.semantic.shape
        targets = self.expert_scores.shape[-1]
        return Sizes(splits, self.visual.shape[-1], semantic, prompts, targets, datasets)
