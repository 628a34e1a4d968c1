"""One split's models: its experts, the mixtures of their scores, and the ridges.

An expert is a projection and a kernel ridge on one vector: the visual one first, then one for each
semantic vector. `closed_forms` fits them, `gate` the mixtures.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from agiqa.core.weight_files import FLOATS
from agiqa.stage2.contract import Expected, Header, inside, matrix_shape, nested, of_arrays
from agiqa.stage2.light.kernel import KernelRidge
from agiqa.stage2.light.mixture import Mixture
from agiqa.stage2.light.projection import Projection
from agiqa.stage2.light.ridge import Ridge
from agiqa.stage2.presets import MIXTURE
from agiqa.stage2.targets import Scales

# The baselines, and which of the experts' vectors each of them sees.
RIDGES = {"ridge": slice(None), "ridge_visual": slice(0, 1), "ridge_semantic": slice(1, None)}

# The mixtures, and which of the experts each of them hears; MIXTURE alone may have a gate.
CONSTANT = "constant"
VARIANTS = {
    "visual": slice(0, 1),
    "semantic": slice(1, None),
    CONSTANT: slice(None),
    MIXTURE: slice(None),
}


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
class Inputs:
    """What a split's mixtures see of N images."""

    components: tuple[Tensor, ...]  # (N, k) of each expert's vector
    expert_scores: Tensor  # (N, E, T), in units of the training deviations


@dataclass(frozen=True)
class SplitModel:
    """What is fitted on one split, in units of its training deviations."""

    seed: int
    experts: tuple[Expert, ...]  # visual, then each prompt
    ridges: Mapping[str, Ridge]  # by RIDGES
    scales: Scales  # of the training side
    mixtures: Mapping[str, Mixture]  # by VARIANTS

    def see(self, visual: np.ndarray, semantic: np.ndarray) -> Inputs:
        """Visual `(N, F)` and semantic `(N, P, D)` vectors to what the mixtures see."""
        pairs = zip(self.experts, [visual, *np.moveaxis(semantic, 1, 0)], strict=True)
        components, scores = zip(*(expert.see(vectors) for expert, vectors in pairs), strict=True)
        return Inputs(
            tuple(torch.from_numpy(part) for part in components),
            torch.from_numpy(np.stack(scores, axis=1)),
        )

    def mix(
        self, inputs: Inputs, variant: str = MIXTURE, dataset: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Scores `(N, T)` on the MOS scale and weights `(N, E, T)`; a gradient may be asked for.

        Args:
            inputs: of `see`.
            variant: which mixture.
            dataset: on whose scale, where the run was trained on several data sets.
        """
        mixture = self.mixtures[variant]
        score, weights = mixture.mix(torch.cat(inputs.components, dim=1), inputs.expert_scores)
        mean, sd = (
            torch.from_numpy(part[dataset]).float() for part in (self.scales.mean, self.scales.sd)
        )
        return mixture.on_scale(score, dataset) * sd + mean, weights

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
        for name, mixture in self.mixtures.items():
            named |= nested(f"mixture.{name}", mixture.tensors())
        return named

    @classmethod
    def from_tensors(
        cls, seed: int, tensors: Mapping[str, Tensor], experts: int, softmax: bool
    ) -> Self:
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
            {
                name: Mixture.from_tensors(inside(f"mixture.{name}", tensors), softmax)
                for name in VARIANTS
            },
        )

    @staticmethod
    def expected(header: Header, place: int, experts: int, targets: int, datasets: int) -> Expected:
        """Name the tensors of the split at `place`; the first split says how wide all are.

        Raises:
            ValueError: a tensor that says how large others are is missing, empty or no matrix.
        """
        widths, total, named = [], 0, {"mos": (FLOATS, (2, datasets, targets))}
        for expert in range(experts):
            part, kernel = _projection_name(expert), f"kernel.{expert}"
            width, kept = matrix_shape(header, f"split.0.{part}.components")
            anchors, _ = matrix_shape(header, f"split.{place}.{kernel}.anchors")
            named |= nested(part, Projection.expected(width, kept))
            named |= nested(kernel, KernelRidge.expected(anchors, kept, targets))
            widths.append(width)
            total += kept
        for name, seen in RIDGES.items():
            named |= nested(name, Ridge.expected(sum(widths[seen]), targets))
        for name in VARIANTS:
            gated = total if name == MIXTURE else 0
            expected = Mixture.expected(gated, experts, targets, datasets)
            named |= nested(f"mixture.{name}", expected)
        return nested(f"split.{place}", named)


def _projection_name(place: int) -> str:
    """Name an expert's projection in a run's weights."""
    return f"semantic.{place - 1}" if place else "visual"
