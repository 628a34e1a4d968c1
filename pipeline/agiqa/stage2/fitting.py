"""Stage 2, `fit`, by the preset that the settings name: features and scores to an ensemble."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agiqa.core.params import Params
from agiqa.stage2.features import Features
from agiqa.stage2.light.training import fit_light
from agiqa.stage2.paper.training import PaperFit, fit_paper
from agiqa.stage2.predictors import AnyEnsemble, AnyInputs
from agiqa.stage2.targets import Sides, Targets
from agiqa.stage2.training.epochs import start_processes
from agiqa.stage2.training.resume import FitState
from agiqa.stage2.tuned.inputs import TunedInputs
from agiqa.stage2.tuned.training import TunedFit, fit_tuned


@dataclass(frozen=True)
class Fitted:
    """What a fit of either preset comes to."""

    ensemble: AnyEnsemble
    experts: tuple[str, ...]  # in the gate's order
    stores: Mapping[str, Any]  # what the inputs were made by
    curves: Sequence[Mapping[str, Any]] = ()
    states: tuple[FitState, ...] = ()

    def forget_states(self) -> None:
        """Remove what a stopped fit would go on from: the run is written."""
        for state in self.states:
            state.remove()


def fit(features: AnyInputs, targets: Targets, sides: Sides, params: Params) -> Fitted | None:
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
    inputs = (features.experts, features.stores)
    if isinstance(features, Features):
        ensemble, curves = fit_light(features, targets, sides, params.fit)
        return Fitted(ensemble, *inputs, curves)
    accelerator = start_processes()
    fitted: PaperFit | TunedFit
    if isinstance(features, TunedInputs):
        fitted = fit_tuned(features, targets, sides, params, accelerator)
    else:
        fitted = fit_paper(features, targets.mos[:, 0], sides, params, accelerator)
    accelerator.end_training()
    if not accelerator.is_main_process:
        return None
    return Fitted(fitted.ensemble, *inputs, fitted.curves, states=fitted.states)
