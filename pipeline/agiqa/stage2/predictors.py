"""A run's models on the images of one data set, whatever the preset: what `evaluate` asks.

The one place that knows which ensemble is which preset's.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch

from agiqa.core.params import Params
from agiqa.stage2.conformal import reach
from agiqa.stage2.contract import SplitScores
from agiqa.stage2.features import Features
from agiqa.stage2.light.ensemble import CHUNK, Ensemble
from agiqa.stage2.light.split_model import RIDGES, VARIANTS
from agiqa.stage2.paper.ensemble import PaperEnsemble
from agiqa.stage2.paper.inputs import PaperInputs
from agiqa.stage2.presets import LIGHT, MIXTURE, TUNED, recipe
from agiqa.stage2.tuned.ensemble import TunedEnsemble
from agiqa.stage2.tuned.inputs import TAIL, TunedInputs, TunedVisual

BASELINES = (*RIDGES, *(variant for variant in VARIANTS if variant != MIXTURE))
DROPPED = "moe_drop_last"  # the mixture on the images that the authors' test loader leaves


AnyEnsemble = Ensemble | TunedEnsemble | PaperEnsemble
AnyInputs = Features | TunedInputs | PaperInputs
ENSEMBLES: dict[str, type[AnyEnsemble]] = {LIGHT: Ensemble, TUNED: TunedEnsemble}


def ensemble_class(preset: str) -> type[AnyEnsemble]:
    """The kind of ensemble that a preset's fit yields."""
    return ENSEMBLES.get(preset, PaperEnsemble)


def make_predictor(
    ensemble: AnyEnsemble,
    features: AnyInputs,
    params: Params,
    name: str,
    dataset: int = 0,
) -> "LightPredictor | TunedPredictor | PaperPredictor":
    """The ensemble's models on the images; the features are of the ensemble's preset.

    Args:
        ensemble: of a run.
        features: of N images of the data set.
        params: of the run.
        name: the data set's.
        dataset: on whose scale to score, where the run was trained on several.

    Raises:
        AgiqaError: the features are of another width than the run's.
    """
    match ensemble, features:
        case PaperEnsemble(), PaperInputs():
            ensemble.require_width(features.semantic.shape[-1], f"The store of '{name}'")
            return PaperPredictor(ensemble, features, params)
        case TunedEnsemble(), TunedInputs():
            return TunedPredictor(ensemble, features)
        case Ensemble(), Features():
            return LightPredictor(ensemble, features, dataset)
    raise TypeError(f"{type(features).__name__} are not for a {type(ensemble).__name__}")


class LightPredictor:
    """The mixture of experts and its baselines.

    `extra_models` are the mixture once more, on the rows that they pick of so many tested images.
    """

    models: tuple[str, ...] = (*BASELINES, MIXTURE)

    def __init__(self, ensemble: Ensemble, features: Features, dataset: int) -> None:
        self.ensemble, self.features, self.dataset = ensemble, features, dataset
        self.extra_models: Mapping[str, Callable[[int], np.ndarray]] = {}
        self._key: tuple[int, bytes] | None = None  # whose `_scores` are: a split and rows
        self._scores: dict[str, SplitScores] = {}

    def predict(self, model: str, index: int, rows: np.ndarray) -> SplitScores:
        """Score the images `rows` `(n,)` by a model of the split at `index`."""
        if (key := (index, rows.tobytes())) != self._key:
            self._key, self._scores = key, self._score_split(index, rows)
        return self._scores[model]

    def gate_epochs(self, target: int) -> list[int]:
        """For how many epochs each split's gate was trained; 0: its mixture is constant."""
        return [int(split.mixtures[MIXTURE].epochs[target]) for split in self.ensemble.splits]

    def _score_split(self, index: int, rows: np.ndarray) -> dict[str, SplitScores]:
        """Score the images by every model of a split, some of them at a time."""
        split, parts = self.ensemble.splits[index], []
        for start in range(0, len(rows), CHUNK):
            own = rows[start : start + CHUNK]
            inputs = self.ensemble.inputs(self.features.visual[own], self.features.semantic[own])
            ridges = {name: split.ridge_scores(name, inputs.components, self.dataset)
                      for name in RIDGES}  # fmt: skip
            with torch.inference_mode():
                mixed = {name: split.mix(inputs, name, self.dataset) for name in VARIANTS}
            parts.append((ridges, mixed))
        scores = {
            name: SplitScores(np.concatenate([ridges[name] for ridges, _ in parts]), None)
            for name in RIDGES
        }
        for name in VARIANTS:
            score, weights = (
                torch.cat([mixed[name][number] for _, mixed in parts]).numpy() for number in (0, 1)
            )
            scores[name] = SplitScores(score, None)
        reaches = [reach(split.errors(t, self.dataset)) for t in range(score.shape[1])]
        scores[MIXTURE] = SplitScores(score, weights, np.array(reaches))
        return scores


class TunedPredictor:
    """The frozen experts and the tail together; each of the two alone, and what `light` has."""

    models: tuple[str, ...] = (*BASELINES, LIGHT, TAIL, MIXTURE)

    def __init__(self, ensemble: TunedEnsemble, inputs: TunedInputs) -> None:
        self.ensemble, self.inputs = ensemble, inputs
        self.light = LightPredictor(ensemble.light, inputs.features, 0)
        self.extra_models: Mapping[str, Callable[[int], np.ndarray]] = {}
        self._key: tuple[int, bytes] | None = None  # whose `_scores` are: a split and rows
        self._scores: dict[str, SplitScores] = {}

    def gate_epochs(self, target: int) -> None:
        """None: what the gate adds is told of the frozen experts alone, by a run of `light`."""

    def predict(self, model: str, index: int, rows: np.ndarray) -> SplitScores:
        """Score the images `rows` `(n,)` by a model of the split at `index`."""
        if model in BASELINES:
            return self.light.predict(model, index, rows)
        if (key := (index, rows.tobytes())) != self._key:
            self._key, self._scores = key, self._score_split(index, rows)
        return self._scores[model]

    def _score_split(self, index: int, rows: np.ndarray) -> dict[str, SplitScores]:
        """Score the images by the frozen mixture, the tail and both."""
        one = self.ensemble.only(index)
        visual = TunedVisual(self.inputs.features.visual[rows], self.inputs.tokens.of(rows))
        prediction = one.predict(visual, self.inputs.semantic[rows])
        frozen, tail = one.both(visual, self.inputs.semantic[rows])
        scales = one.light.splits[0].scales
        alone = {
            name: SplitScores(scales.restore(score[0].numpy()[:, None], 0), None)
            for name, score in ((LIGHT, frozen), (TAIL, tail))
        }
        reaches = np.array([reach(one.errors(0))])
        whole = SplitScores(prediction.score[0].numpy(), prediction.gate[0].numpy(), reaches)
        return {**alone, MIXTURE: whole}


class PaperPredictor:
    """The paper's network, alone; as its authors count too, where the recipe says so."""

    models: tuple[str, ...] = (MIXTURE,)

    def __init__(self, ensemble: PaperEnsemble, inputs: PaperInputs, params: Params) -> None:
        self.ensemble, self.inputs = ensemble, inputs
        chosen = recipe(params)
        self.extra_models: Mapping[str, Callable[[int], np.ndarray]] = (
            {DROPPED: partial(_whole_batches, batch=chosen.batch_size)}
            if chosen.drop_last_test
            else {}
        )

    def gate_epochs(self, target: int) -> None:
        """Its gate is part of the network, and no choice of the validation side."""

    def predict(self, model: str, index: int, rows: np.ndarray) -> SplitScores:
        """The split's network on the images."""
        output = self.ensemble.predict_split(index, self.inputs.pixels, self.inputs.semantic, rows)
        return SplitScores(output.score.numpy()[:, None], output.gate.numpy()[..., None])


def _whole_batches(count: int, batch: int) -> np.ndarray:
    """Rows of `count` images that fill whole batches after a shuffle, as the authors' loader."""
    kept = count // batch * batch or count
    return np.sort(np.random.default_rng(0).permutation(count)[:kept])
