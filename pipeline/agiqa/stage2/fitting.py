"""Stage 2, `fit`, by the preset that the settings name: features and scores to an ensemble."""

from agiqa.core.params import Params
from agiqa.stage2.features import Features
from agiqa.stage2.light.training import fit_light
from agiqa.stage2.paper.ensemble import PaperEnsemble
from agiqa.stage2.paper.training import fit_paper
from agiqa.stage2.predictors import AnyEnsemble, AnyInputs
from agiqa.stage2.targets import Sides, Targets
from agiqa.stage2.training.epochs import start_processes
from agiqa.stage2.training.resume import Fitted
from agiqa.stage2.tuned.ensemble import TunedEnsemble
from agiqa.stage2.tuned.inputs import TunedInputs
from agiqa.stage2.tuned.training import fit_tuned


def fit(
    features: AnyInputs, targets: Targets, sides: Sides, params: Params
) -> Fitted[AnyEnsemble] | None:
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
    if isinstance(features, Features):
        return Fitted(*fit_light(features, targets, sides, params.fit))
    accelerator = start_processes()
    fitted: Fitted[PaperEnsemble] | Fitted[TunedEnsemble]
    if isinstance(features, TunedInputs):
        fitted = fit_tuned(features, targets, sides, params, accelerator)
    else:
        fitted = fit_paper(features, targets.mos[:, 0], sides, params, accelerator)
    accelerator.end_training()
    return Fitted(*fitted) if accelerator.is_main_process else None
