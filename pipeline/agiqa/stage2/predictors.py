"""The presets side by side: what each fits, and a run's models on the images of one data set.

The one place that knows which ensemble is which preset's, and which models stand beside it: of
`light` its baselines; of `tuned` also the frozen experts and the tail alone; of `paper` the network
alone, and as its authors count, too, where the recipe says so.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from agiqa.core.params import Params
from agiqa.stage2.contract import SplitScores, reach
from agiqa.stage2.features import Features, Sides, Targets
from agiqa.stage2.light.ensemble import CHUNK, RIDGES, VARIANTS, Ensemble
from agiqa.stage2.paper.ensemble import PaperEnsemble
from agiqa.stage2.paper.inputs import PaperInputs
from agiqa.stage2.presets import LIGHT, MIXTURE, RECIPES, TUNED, recipe
from agiqa.stage2.tuned.ensemble import TunedEnsemble
from agiqa.stage2.tuned.inputs import TAIL, TunedInputs, TunedVisual

if TYPE_CHECKING:
    from agiqa.stage2.training.resume import Fitted

BASELINES = (*RIDGES, *(variant for variant in VARIANTS if variant != MIXTURE))
DROPPED = "moe_drop_last"  # the mixture on the images that the authors' test loader leaves

AnyEnsemble = Ensemble | TunedEnsemble | PaperEnsemble
AnyInputs = Features | TunedInputs | PaperInputs
ENSEMBLES: dict[str, type[AnyEnsemble]] = {  # by preset, what a fit yields
    **{LIGHT: Ensemble, TUNED: TunedEnsemble},
    **dict.fromkeys(RECIPES, PaperEnsemble),
}


def fit_ensemble(
    features: AnyInputs, targets: Targets, sides: Sides, params: Params
) -> "Fitted[AnyEnsemble] | None":
    """Fit on every split, as the preset does.

    Args:
        features: of all N images, as the preset takes them.
        targets: their scores.
        sides: by split seed, row numbers of train and val; a test side is not looked at.
        params: all settings.

    Returns:
        None in all but the first of several processes.

    Raises:
        AgiqaError: too few images, scores without spread, weights or sizes that do not fit.
    """
    from agiqa.stage2.light.training import fit_light
    from agiqa.stage2.paper.training import fit_paper
    from agiqa.stage2.training.epochs import start_processes
    from agiqa.stage2.training.resume import Fitted
    from agiqa.stage2.tuned.training import fit_tuned

    if not isinstance(features, TunedInputs | PaperInputs):
        return Fitted(*fit_light(features, targets, sides, params.fit))
    accelerator = start_processes()
    fitted: Fitted[Any]
    if isinstance(features, TunedInputs):
        fitted = fit_tuned(features, targets, sides, params, accelerator)
    else:
        fitted = fit_paper(features, targets, sides, params, accelerator)
    accelerator.end_training()
    return Fitted(*fitted) if accelerator.is_main_process else None


def score_split(
    ensemble: AnyEnsemble, inputs: AnyInputs, index: int, rows: np.ndarray, dataset: int = 0
) -> dict[str, SplitScores]:
    """Score images by every model of the split at `index`, the mixture last.

    Args:
        ensemble: of a run.
        inputs: of N images of a data set, as the ensemble's preset takes them.
        index: of the split.
        rows: which of the images `(n,)`.
        dataset: on whose scale to score, where the run was trained on several.
    """
    match ensemble, inputs:
        case Ensemble(), Features():
            return _of_light(ensemble, inputs, index, rows, dataset)
        case TunedEnsemble(), TunedInputs():
            return _of_tuned(ensemble, inputs, index, rows)
        case PaperEnsemble(), PaperInputs():
            output = ensemble.predict_split(index, inputs.pixels, inputs.semantic, rows)
            score, gate = output.score.numpy()[:, None], output.gate.numpy()[..., None]
            return {MIXTURE: SplitScores(score, gate)}
    raise TypeError(f"{type(inputs).__name__} are not for a {type(ensemble).__name__}")


def require_width(ensemble: AnyEnsemble, inputs: AnyInputs, name: str) -> None:
    """Refuse a data set whose semantic vectors are of another width than the paper's network."""
    if isinstance(ensemble, PaperEnsemble):
        ensemble.require_width(inputs.semantic.shape[-1], f"The store of '{name}'")


def gate_epochs(ensemble: AnyEnsemble, target: int) -> list[int]:
    """For how many epochs each split's gate was trained; 0: its mixture is constant.

    None at all of the other presets: a network's gate is part of it and no choice of the validation
    side, and what a gate adds to frozen experts is told by a run of `light`.
    """
    if not isinstance(ensemble, Ensemble):
        return []
    return [int(split.mixtures[MIXTURE].epochs[target]) for split in ensemble.splits]


def extra_models(params: Params) -> dict[str, int]:
    """The mixture once more, on tested images that fill `whole_batches` of that size."""
    if params.fit.preset not in RECIPES or not recipe(params).drop_last_test:
        return {}
    return {DROPPED: recipe(params).batch_size}


def _of_light(
    ensemble: Ensemble, features: Features, index: int, rows: np.ndarray, dataset: int
) -> dict[str, SplitScores]:
    """Score by the baselines and the mixture, some of the images at a time."""
    split, parts, gates = ensemble.splits[index], [], []
    for start in range(0, len(rows), CHUNK):
        own = rows[start : start + CHUNK]
        inputs = ensemble.inputs(features.visual[own], features.semantic[own])
        scores = {name: split.ridge_scores(name, inputs.components, dataset) for name in RIDGES}
        with torch.inference_mode():
            mixed = {name: split.mix(inputs, name, dataset) for name in VARIANTS}
        parts.append(scores | {name: score.numpy() for name, (score, _) in mixed.items()})
        gates.append(mixed[MIXTURE][1].numpy())
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    score, gate = whole[MIXTURE], np.concatenate(gates)
    reaches = np.array([reach(split.errors(t, dataset)) for t in range(score.shape[1])])
    alone = {name: SplitScores(whole[name], None) for name in BASELINES}
    return {**alone, MIXTURE: SplitScores(score, gate, reaches)}


def _of_tuned(
    ensemble: TunedEnsemble, inputs: TunedInputs, index: int, rows: np.ndarray
) -> dict[str, SplitScores]:
    """Score by the baselines, the frozen mixture, the tail and both."""
    one = ensemble.only(index)
    visual = TunedVisual(inputs.visual[rows], inputs.tokens.of(rows))
    prediction = one.predict(visual, inputs.semantic[rows])
    frozen, tail = one.both(visual, inputs.semantic[rows])
    scales = one.light.splits[0].scales
    alone = {
        name: SplitScores(scales.restore(score[0].numpy()[:, None], 0), None)
        for name, score in ((LIGHT, frozen), (TAIL, tail))
    }
    reaches = np.array([reach(one.errors(0))])
    whole = SplitScores(prediction.score[0].numpy(), prediction.gate[0].numpy(), reaches)
    light = _of_light(ensemble.light, inputs, index, rows, 0)
    return {**{name: light[name] for name in BASELINES}, **alone, MIXTURE: whole}


def whole_batches(count: int, batch: int) -> np.ndarray:
    """Rows of `count` images that fill whole batches after a shuffle, as the authors' loader."""
    kept = count // batch * batch or count
    return np.sort(np.random.default_rng(0).permutation(count)[:kept])
