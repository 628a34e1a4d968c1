"""What a fit with the preset `light` yields and how it scores: S splits, and stacked regressors.

The unit that a run folder stores and that evaluate and score use; `training` makes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from agiqa.core.params import Params
from agiqa.stage2.contract import Expected, Header, Prediction, inside, matrix_shape, nested
from agiqa.stage2.light.moe import MixtureOfExperts, MixtureOutput, Sizes
from agiqa.stage2.light.split_model import Inputs, SplitModel
from agiqa.stage2.presets import MIXTURE

VARIANTS = (MIXTURE, "visual", "semantic")  # regressors: both inputs, or one of them
CHUNK = 512  # images that the regressors score at once


@dataclass(frozen=True)
class Ensemble:
    """S splits with K members each."""

    splits: tuple[SplitModel, ...]
    regressors: Mapping[str, MixtureOfExperts]  # by VARIANTS; S * K models stacked
    members: int

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
            variant: which regressor.
            dataset: on whose scale, where the run was trained on several data sets.
        """
        with torch.inference_mode():
            return self.mix(Inputs.of(self.splits, visual, semantic), variant, dataset)

    def mix(self, inputs: Inputs, variant: str = MIXTURE, dataset: int = 0) -> Prediction:
        """The same of what the regressors see; a gradient may be asked for."""
        images = inputs.visual.shape[1]
        raw = predict_rows(
            self.regressors[variant],
            inputs,
            [np.arange(images)] * len(self.splits),
            self.members,
            variant,
            np.full(images, dataset),
        )
        scales = [split.scales for split in self.splits]
        mean, sd = (
            torch.from_numpy(np.stack([part[dataset] for part in parts])).float()[:, None, None]
            for parts in ([each.mean for each in scales], [each.sd for each in scales])
        )
        shape = (len(self.splits), self.members)
        return Prediction(raw.score.unflatten(0, shape) * sd + mean, raw.gate.unflatten(0, shape))

    def only(self, place: int) -> Self:
        """The ensemble of the split at `place` alone."""
        own = slice(place * self.members, (place + 1) * self.members)
        regressors = {variant: each.only(own) for variant, each in self.regressors.items()}
        return type(self)((self.splits[place],), regressors, self.members)

    def semantic_order(self, names: Sequence[str], width: int, where: str) -> list[int]:
        """Which of an extractor's semantic vectors each expert takes: they are in order."""
        return list(range(len(names)))

    def tensors(self) -> dict[str, Tensor]:
        """Name what a run keeps."""
        named: dict[str, Tensor] = {}
        for place, split in enumerate(self.splits):
            named |= nested(f"split.{place}", split.tensors())
        for variant, regressor in self.regressors.items():
            named |= nested(variant, regressor.state_dict())
        return named

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], params: Params, provenance: Mapping[str, Any]
    ) -> Self:
        """Make the ensemble of a run again from its tensors, settings and provenance."""
        experts = len(provenance["experts"])
        splits = tuple(
            SplitModel.from_tensors(seed, inside(f"split.{place}", tensors), experts)
            for place, seed in enumerate(provenance["seeds"])
        )
        datasets, targets = splits[0].scales.mean.shape
        kept = [expert.projection.components.shape[1] for expert in splits[0].experts]
        sizes = Sizes(len(splits), kept[0], kept[1], experts - 1, targets, datasets)
        regressors = {}
        for variant in VARIANTS:
            regressor = sizes.regressor(variant, params.fit)
            regressor.load_state_dict(inside(variant, tensors))
            regressors[variant] = regressor.eval()
        return cls(splits, regressors, params.fit.members)

    @staticmethod
    def expected(header: Header, params: Params, provenance: Mapping[str, Any]) -> Expected:
        """Name the tensors of a run; the regressors take no room, on the device `meta`.

        Raises:
            ValueError: the settings or the provenance contradict what the file holds.
        """
        splits, experts = len(provenance["seeds"]), len(provenance["experts"])
        datasets, targets = len(provenance["trained_on"]), len(provenance["targets"])
        if experts < 2:
            raise ValueError("no expert but the visual one is told of")
        named: Expected = {}
        for place in range(splits):
            named |= SplitModel.expected(header, place, experts, targets, datasets)
        kept = [
            matrix_shape(header, f"split.0.{part}.components")[1]
            for part in ("visual", "semantic.0")
        ]
        sizes = Sizes(splits, kept[0], kept[1], experts - 1, targets, datasets)
        for variant in VARIANTS:
            with torch.device("meta"):
                state = sizes.regressor(variant, params.fit).state_dict()
            shapes = {name: (("F32",), tuple(tensor.shape)) for name, tensor in state.items()}
            named |= nested(variant, shapes)
        return named


def predict_rows(
    regressor: MixtureOfExperts,
    inputs: Inputs,
    rows: Sequence[np.ndarray],
    members: int,
    variant: str,
    dataset_of: np.ndarray,
) -> MixtureOutput:
    """Scores `(S * K, n, T)` and gates of each split's own rows, in units of training deviations.

    Sides of unequal length are padded with their first row; cut the result to each length.

    Args:
        regressor: S * K models.
        inputs: of N images.
        rows: the rows of each of the S splits.
        members: K.
        variant: which inputs.
        dataset_of: on whose scale each of the N images is scored `(N,)`.
    """
    regressor.eval()
    longest = max(map(len, rows))
    padded = np.stack([np.concatenate([r, np.repeat(r[:1], longest - len(r))]) for r in rows])
    index = torch.from_numpy(padded).repeat_interleave(members, dim=0)
    split = torch.arange(len(rows)).repeat_interleave(members)[:, None]
    datasets = torch.from_numpy(dataset_of)
    parts = []
    for start in range(0, longest, CHUNK):
        chosen = index[:, start : start + CHUNK]
        score, gate = regressor(**inputs.take(split, chosen, variant))
        parts.append((regressor.on_scale(score, datasets[chosen]), gate))
    return MixtureOutput(*(torch.cat(part, dim=1) for part in zip(*parts, strict=True)))
