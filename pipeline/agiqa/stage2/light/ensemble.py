"""What a fit with the preset `light` yields and how it scores: experts, and the models of S splits.

The unit that a run folder stores and that evaluate and score use; `training` makes it. What is
large of an expert all splits share, so a run keeps it once: the projection of its vector, and the
components of the images that the splits' kernel ridges stand on. A projection is found without any
score, on the training and validation sides of all splits together: vectors are standardised, and
their principal components kept. A split has a kernel ridge for each expert (`ridge`), the mixtures
of their scores (`mixture`), and the baselines' ridges. The visual vector is the first expert's,
each semantic vector is one more's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from agiqa.core.params import Params
from agiqa.core.weight_files import FLOATS
from agiqa.stage2.contract import (
    Expected,
    Header,
    HeldOut,
    Prediction,
    cv_plus,
    inside,
    matrix_shape,
    nested,
    of_arrays,
)
from agiqa.stage2.features import Scales
from agiqa.stage2.light.mixture import Mixture
from agiqa.stage2.light.ridge import KernelRidge, Ridge, gaussian
from agiqa.stage2.presets import CONSTANT, MIXTURE

FLOOR = 1e-6  # added to deviations, so that a constant feature stays finite
BLOCK = 1024  # images projected at once: bounds the memory of their standardised vectors
CHUNK = 512  # images scored at once: bounds the memory of their distances to the anchors

# The baselines, and which of the experts' vectors each of them sees.
RIDGES = {"ridge": slice(None), "ridge_visual": slice(0, 1), "ridge_semantic": slice(1, None)}

# The mixtures, and which of the experts each of them hears; MIXTURE alone may have a gate.
VARIANTS = {
    "visual": slice(0, 1),
    "semantic": slice(1, None),
    CONSTANT: slice(None),
    MIXTURE: slice(None),
}


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

    @property
    def gain(self) -> float:
        """What makes a component weigh as much in a ridge as a feature of any other vector."""
        return float((len(self.projection.mean) / self.anchors.shape[1]) ** 0.5)

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


@dataclass(frozen=True)
class SplitModel:
    """What is fitted on one split, in units of its training deviations."""

    seed: int
    kernels: tuple[KernelRidge, ...]  # of each expert
    ridges: Mapping[str, Ridge]  # by RIDGES
    scales: Scales  # of the training side
    mixtures: Mapping[str, Mixture]  # by VARIANTS
    held_out: HeldOut  # errors of the mixture with the gate

    def expert_scores(self, inputs: ExpertInputs) -> Tensor:
        """Scores `(N, E, T)` of the kernel ridges, in units of the training deviations."""
        pairs = zip(self.kernels, inputs.kernels, strict=True)
        return torch.stack([ridge.scores(kernel) for ridge, kernel in pairs], dim=1)

    def mix(
        self, inputs: ExpertInputs, variant: str = MIXTURE, dataset: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Scores `(N, T)` on the MOS scale and weights `(N, E, T)`; a gradient may be asked for.

        Args:
            inputs: of N images.
            variant: which mixture.
            dataset: on whose scale, where the run was trained on several data sets.
        """
        mixture = self.mixtures[variant]
        score, weights = mixture.mix(inputs.joined, self.expert_scores(inputs))
        mean, sd = (
            torch.from_numpy(part[dataset]).float() for part in (self.scales.mean, self.scales.sd)
        )
        return mixture.on_scale(score, dataset) * sd + mean, weights

    def errors(self, target: int, dataset: int) -> np.ndarray:
        """Absolute errors `(m,)` on the validation side's images of one data set, on its scale."""
        return self.held_out.of(target, dataset) * float(self.scales.sd[dataset, target])

    def ridge_scores(self, name: str, components: Sequence[Tensor], dataset: int) -> np.ndarray:
        """Scores `(N, T)` of a baseline on the MOS scale, by each expert's components."""
        visible = torch.cat(list(components[RIDGES[name]]), dim=1).numpy()
        return self.scales.restore(self.ridges[name].predict(visible), dataset)

    def tensors(self) -> dict[str, Tensor]:
        """Name what a run keeps."""
        named = of_arrays({"mos": np.stack([self.scales.mean, self.scales.sd])})
        for index, kernel in enumerate(self.kernels):
            named |= nested(f"kernel.{index}", kernel.tensors())
        for name, ridge in self.ridges.items():
            named |= nested(name, ridge.tensors())
        for name, mixture in self.mixtures.items():
            named |= nested(f"mixture.{name}", mixture.tensors())
        return named | nested("held_out", self.held_out.tensors())

    @classmethod
    def from_tensors(
        cls, seed: int, tensors: Mapping[str, Tensor], anchors: Sequence[int], softmax: bool
    ) -> Self:
        """Make the split of `tensors` again, each expert with so many anchors."""
        kernels = (
            KernelRidge.from_tensors(inside(f"kernel.{index}", tensors), count)
            for index, count in enumerate(anchors)
        )
        return cls(
            seed,
            tuple(kernels),
            {name: Ridge.from_tensors(inside(name, tensors)) for name in RIDGES},
            Scales(*tensors["mos"].numpy()),
            {
                name: Mixture.from_tensors(inside(f"mixture.{name}", tensors), softmax)
                for name in VARIANTS
            },
            HeldOut.from_tensors(inside("held_out", tensors)),
        )

    @staticmethod
    def expected(
        header: Header, index: int, kept: Sequence[int], targets: int, datasets: int
    ) -> Expected:
        """Name the tensors of the split at `index`, of experts with so many components.

        Raises:
            ValueError: a tensor that says how large others are is missing, empty or no matrix.
        """
        named: Expected = {"mos": (FLOATS, (2, datasets, targets))}
        for expert in range(len(kept)):
            kernel = f"kernel.{expert}"
            anchors, _ = matrix_shape(header, f"split.{index}.{kernel}.dual")
            named |= nested(kernel, KernelRidge.expected(anchors, targets))
        for name, visible in RIDGES.items():
            named |= nested(name, Ridge.expected(sum(kept[visible]), targets))
        for name in VARIANTS:
            gated = sum(kept) if name == MIXTURE else 0
            expected = Mixture.expected(gated, len(kept), targets, datasets)
            named |= nested(f"mixture.{name}", expected)
        images, _ = matrix_shape(header, f"split.{index}.held_out.errors")
        named |= nested("held_out", HeldOut.expected(images, targets))
        return nested(f"split.{index}", named)


@dataclass(frozen=True)
class Ensemble:
    """S splits, whose mean score is a new image's."""

    experts: tuple[Expert, ...]
    splits: tuple[SplitModel, ...]

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What a run's provenance says of it, beside what all presets say."""
        return {}

    def predict(
        self, visual: np.ndarray, semantic: np.ndarray, variant: str = MIXTURE, dataset: int = 0
    ) -> Prediction:
        """Scores on the MOS scale for N images.

        Args:
            visual: vectors `(N, F)`.
            semantic: vectors `(N, P, D)`.
            variant: which mixture.
            dataset: on whose scale, where the run was trained on several data sets.
        """
        parts = []
        with torch.inference_mode():
            for start in range(0, len(visual), CHUNK):
                rows = slice(start, start + CHUNK)
                inputs = self.inputs(visual[rows], semantic[rows])
                mixed = [split.mix(inputs, variant, dataset) for split in self.splits]
                parts.append([torch.stack(part) for part in zip(*mixed, strict=True)])
        score, gate = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        return Prediction(score, gate)

    def inputs(self, visual: np.ndarray, semantic: np.ndarray) -> ExpertInputs:
        """Visual `(N, F)` and semantic `(N, P, D)` vectors as the splits' models take them."""
        pairs = zip(self.experts, [visual, *np.moveaxis(semantic, 1, 0)], strict=True)
        components = tuple(expert.components(vectors) for expert, vectors in pairs)
        kernels = map(Expert.kernel, self.experts, components)
        return ExpertInputs(components, tuple(kernels))

    def intervals(self, score: Tensor, target: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Ends `(N,)` of prediction intervals on the first data set's scale (`cv_plus`).

        Args:
            score: of `predict` `(S, N, T)`.
            target: which of the T.
        """
        errors = [split.errors(target, 0) for split in self.splits]
        return cv_plus(score[..., target].numpy(), errors)

    def only(self, index: int) -> Self:
        """The ensemble of the split at `index` alone."""
        return type(self)(self.experts, (self.splits[index],))

    def semantic_order(self, names: Sequence[str], width: int, where: str) -> list[int]:
        """Which of an extractor's semantic vectors each expert takes: they are in order."""
        return list(range(len(names)))

    def tensors(self) -> dict[str, Tensor]:
        """Name what a run keeps."""
        named: dict[str, Tensor] = {}
        for index, expert in enumerate(self.experts):
            named |= nested(f"expert.{index}", expert.tensors())
        for index, split in enumerate(self.splits):
            named |= nested(f"split.{index}", split.tensors())
        return named

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], params: Params, provenance: Mapping[str, Any]
    ) -> Self:
        """Make the ensemble of a run again from its tensors, settings and provenance."""
        softmax = params.fit.gate == "softmax"
        experts = tuple(
            Expert.from_tensors(inside(f"expert.{index}", tensors))
            for index in range(len(provenance["experts"]))
        )
        anchors = [len(expert.anchors) for expert in experts]
        splits = (
            SplitModel.from_tensors(seed, inside(f"split.{index}", tensors), anchors, softmax)
            for index, seed in enumerate(provenance["seeds"])
        )
        return cls(experts, tuple(splits))

    @staticmethod
    def expected(header: Header, params: Params, provenance: Mapping[str, Any]) -> Expected:
        """Name the tensors of a run.

        Raises:
            ValueError: the provenance contradicts what the file holds.
        """
        experts = len(provenance["experts"])
        datasets, targets = len(provenance["trained_on"]), len(provenance["targets"])
        if experts < 2:
            raise ValueError("no expert but the visual one is told of")
        named: Expected = {}
        kept = []
        for index in range(experts):
            width, components = matrix_shape(header, f"expert.{index}.components")
            anchors, _ = matrix_shape(header, f"expert.{index}.anchors")
            named |= nested(f"expert.{index}", Expert.expected(width, components, anchors))
            kept.append(components)
        for index in range(len(provenance["seeds"])):
            named |= SplitModel.expected(header, index, kept, targets, datasets)
        return named
