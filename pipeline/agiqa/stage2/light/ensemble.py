"""What a fit with the preset `light` yields and how it scores: experts, and the models of S splits.

The unit that a run folder stores and that evaluate and score use; `training` makes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from agiqa.core.params import Params
from agiqa.stage2.conformal import cv_plus
from agiqa.stage2.contract import Expected, Header, Prediction, inside, matrix_shape, nested
from agiqa.stage2.light.expert import Expert, ExpertInputs
from agiqa.stage2.light.split_model import SplitModel
from agiqa.stage2.presets import MIXTURE

CHUNK = 512  # images scored at once: bounds the memory of their distances to the anchors


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
        return ExpertInputs.of(self.experts, components)

    def intervals(self, score: Tensor, target: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Ends `(N,)` of prediction intervals on the first data set's scale (`conformal`).

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
