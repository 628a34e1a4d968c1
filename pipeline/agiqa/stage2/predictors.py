"""A run's models on the images of one data set: what `evaluation` asks, whatever the preset."""

from typing import NamedTuple, Protocol

import numpy as np

from agiqa.stage2.features import Features
from agiqa.stage2.light.ensemble import RIDGES, VARIANTS, Ensemble, ridge_inputs
from agiqa.stage2.paper.ensemble import PaperEnsemble
from agiqa.stage2.paper.inputs import PaperInputs

MIXTURE = "moe"  # the model that every run has; the others stand beside it
BASELINES = ("ridge", "ridge_visual", "ridge_semantic", "visual", "semantic")


class Opinion(NamedTuple):
    """What one model of one split says of n images."""

    score: np.ndarray  # (n, T)
    gate: np.ndarray | None  # (n, E, T)


class Tested(Protocol):
    """A run's models on one data set, whatever the preset."""

    models: tuple[str, ...]

    def predict(self, model: str, place: int, rows: np.ndarray) -> Opinion:
        """The opinion of the split at `place` on images `rows` `(n,)`."""


class LightModels:
    """The mixture of experts and its baselines."""

    models: tuple[str, ...] = (*BASELINES, MIXTURE)

    def __init__(self, ensemble: Ensemble, features: Features, dataset: int) -> None:
        self.splits, self.features, self.dataset = ensemble.splits, features, dataset
        self.outputs = {
            variant: ensemble.predict(features.visual, features.semantic, variant, dataset)
            for variant in VARIANTS
        }

    def predict(self, model: str, place: int, rows: np.ndarray) -> Opinion:
        """The ridge's score, or the mean of the split's regressors."""
        if model in RIDGES:
            split = self.splits[place]
            inputs = ridge_inputs(split, self.features.visual[rows], self.features.semantic[rows])
            said = split.ridges[model].predict(inputs[model])
            return Opinion(split.scales.restore(said, self.dataset), None)
        output = self.outputs[model]
        score, gate = (each[place].mean(dim=0).numpy()[rows] for each in output[:2])
        return Opinion(score, gate if model == MIXTURE else None)


class PaperModels:
    """The paper's network, alone."""

    models: tuple[str, ...] = (MIXTURE,)

    def __init__(self, ensemble: PaperEnsemble, inputs: PaperInputs) -> None:
        self.ensemble, self.inputs = ensemble, inputs

    def predict(self, model: str, place: int, rows: np.ndarray) -> Opinion:
        """The split's network on the images."""
        found = self.ensemble.predict_split(place, self.inputs.pixels, self.inputs.semantic, rows)
        return Opinion(found.score.numpy()[:, None], found.gate.numpy()[..., None])


def models_of(
    ensemble: Ensemble | PaperEnsemble, features: Features | PaperInputs, dataset: int = 0
) -> Tested:
    """The ensemble's models on the images; the features are of the ensemble's preset.

    `dataset` says on whose scale to score, where the run was trained on several.
    """
    match ensemble, features:
        case PaperEnsemble(), PaperInputs():
            return PaperModels(ensemble, features)
        case Ensemble(), Features():
            return LightModels(ensemble, features, dataset)
    raise TypeError(f"{type(features).__name__} are not for a {type(ensemble).__name__}")
