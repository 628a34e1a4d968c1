"""The run's error on the validation sides, which its aspects' validity is measured on.

Each image is scored by the splits that validate on it, none of which trained on it.
"""

from collections.abc import Mapping

import numpy as np
import torch

from agiqa.stage2.features import with_answers
from agiqa.stage2.light.ensemble import Ensemble, Inputs, predict_rows, project
from agiqa.store import FeatureStore


def validation_scores(
    ensemble: Ensemble,
    sides: Mapping[int, np.ndarray],
    ids: list[str],
    visual: FeatureStore,
    semantic: FeatureStore,
    chosen: list[int],
    answers: FeatureStore | None,
) -> np.ndarray:
    """Mean scores `(N,)` of the images that some split validates on; NaN for the others.

    Of the run's first target.

    Args:
        ensemble: of the preset light.
        sides: by split seed, row numbers of its validation images.
        ids: of all N images.
        visual: the pack of visual vectors.
        semantic: the pack of semantic vectors.
        chosen: which of its vectors the run reads.
        answers: the pack of answers' probabilities, where the run has that expert.
    """
    parts = []
    for split in ensemble.splits:
        named = [ids[row] for row in sides[split.seed]]
        said = semantic.rows(named)[:, chosen].astype(np.float32)
        if answers is not None:
            said = with_answers(said, answers.rows(named).astype(np.float32))
        seen = visual.rows(named).astype(np.float32).reshape(len(named), -1)
        parts.append(project([split], seen, said))
    longest = max(part.visual.shape[1] for part in parts)
    inputs = Inputs(
        *(
            torch.cat([_padded(getattr(part, kind), longest) for part in parts])
            for kind in ("visual", "semantic", "opinions")
        )
    )
    rows = [np.arange(part.visual.shape[1]) for part in parts]
    first = np.zeros(longest, dtype=np.intp)  # on the scale of the first data set
    moe = ensemble.regressors["moe"]
    found = predict_rows(moe, inputs, rows, ensemble.members, "moe", first).score[..., 0]
    found = found.unflatten(0, (len(parts), ensemble.members)).mean(dim=1)
    total, times = np.zeros(len(ids)), np.zeros(len(ids))
    for place, split in enumerate(ensemble.splits):
        mine = sides[split.seed]
        score = split.scales.restore(found[place, : len(mine), None].numpy(), 0)[:, 0]
        total[mine] += score
        times[mine] += 1
    with np.errstate(invalid="ignore"):
        return np.asarray(total / times)


def _padded(values: torch.Tensor, length: int) -> torch.Tensor:
    """`(1, n, …)` to `(1, length, …)`."""
    missing = length - values.shape[1]
    return torch.cat([values, values.new_zeros(1, missing, *values.shape[2:])], dim=1)
