"""What a fit with the preset `light` yields and how it scores: the models of S splits.

The unit that a run folder stores and that evaluate and score use; `training` makes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from agiqa.core.params import Params
from agiqa.stage2.contract import Expected, Header, Prediction, inside, nested
from agiqa.stage2.light.split_model import SplitModel
from agiqa.stage2.presets import MIXTURE


@dataclass(frozen=True)
class Ensemble:
    """S splits, whose mean score is a new image's."""

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
        with torch.inference_mode():
            mixed = [s.mix(s.see(visual, semantic), variant, dataset) for s in self.splits]
        score, gate = (torch.stack(part) for part in zip(*mixed, strict=True))
        return Prediction(score, gate)

    def only(self, place: int) -> Self:
        """The ensemble of the split at `place` alone."""
        return type(self)((self.splits[place],))

    def semantic_order(self, names: Sequence[str], width: int, where: str) -> list[int]:
        """Which of an extractor's semantic vectors each expert takes: they are in order."""
        return list(range(len(names)))

    def tensors(self) -> dict[str, Tensor]:
        """Name what a run keeps."""
        named: dict[str, Tensor] = {}
        for place, split in enumerate(self.splits):
            named |= nested(f"split.{place}", split.tensors())
        return named

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], params: Params, provenance: Mapping[str, Any]
    ) -> Self:
        """Make the ensemble of a run again from its tensors, settings and provenance."""
        experts, softmax = len(provenance["experts"]), params.fit.gate == "softmax"
        return cls(
            tuple(
                SplitModel.from_tensors(seed, inside(f"split.{place}", tensors), experts, softmax)
                for place, seed in enumerate(provenance["seeds"])
            )
        )

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
        for place in range(len(provenance["seeds"])):
            named |= SplitModel.expected(header, place, experts, targets, datasets)
        return named
