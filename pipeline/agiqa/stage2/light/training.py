"""Stage 2, `fit` with the preset `light`: projections, ridges, experts and mixtures of every split.

The training side fits everything, the validation side alone picks penalties and says whether a gate
is worth having; the test side is not touched here. A split is fitted after another, so that ten
need hardly more memory than one.

Several targets share the projections and the kernels. Images of several data sets train together,
each on the scale of its own (`targets`): errors are in units of that data set's deviation.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from agiqa.core.params import Fit
from agiqa.core.progress import track
from agiqa.stage2.conformal import HeldOut, held_out
from agiqa.stage2.features import Features
from agiqa.stage2.light import gate
from agiqa.stage2.light.closed_forms import ClosedForms, Projected, fit_split, project
from agiqa.stage2.light.ensemble import Ensemble
from agiqa.stage2.light.expert import Expert
from agiqa.stage2.light.mixture import Mixture
from agiqa.stage2.light.split_model import CONSTANT, VARIANTS, SplitModel
from agiqa.stage2.presets import MIXTURE
from agiqa.stage2.targets import Scales, Sides, Targets, require_images

log = logging.getLogger(__name__)

LEAST = {"train": 8, "val": 2}  # images a split needs


def fit_light(
    features: Features, targets: Targets, sides: Sides, settings: Fit
) -> tuple[Ensemble, list[dict[str, Any]]]:
    """Train on every split.

    Args:
        features: of all N images.
        targets: their scores.
        sides: by split seed, row numbers of train and val (a test side is not looked at).
        settings: `params.yaml`, section fit.

    Returns:
        The fitted ensemble, and the gates' curves: model, seed, epoch, train_loss, val_srcc,
        val_plcc.

    Raises:
        AgiqaError: too few images, or scores without spread.
    """
    require_images(targets, sides, LEAST)
    largest = max(len(rows["train"]) for rows in sides.values())
    if 0 < settings.anchors < largest:
        log.info(
            "Kernels and projections of %d training images stand on %d of them (fit.anchors).",
            largest,
            settings.anchors,
        )
    projected = project(features, sides, settings)
    splits = []
    curves: list[dict[str, Any]] = []
    for seed, rows in track(list(sides.items()), "Fit"):
        scales = Scales.of(targets, rows["train"])
        own = np.concatenate([rows["train"], rows["val"]])
        mos = scales.standardise(targets.mos[own], targets.dataset_of[own])
        fitted = fit_split(projected, mos, targets, rows, settings)
        mixtures, errors, curve = _fit_mixtures(fitted, mos, targets, len(rows["train"]), settings)
        models = fitted.kernels, fitted.ridges, scales, mixtures, errors
        splits.append(SplitModel(seed, *models))
        curves += [{"model": MIXTURE, "seed": seed, **row} for row in curve]
    return _with_anchors(projected, splits), curves


def _with_anchors(projected: Projected, splits: Sequence[SplitModel]) -> Ensemble:
    """Keep the components of those images that some split's kernels stand on."""
    used = np.unique(np.concatenate([split.kernels[0].rows for split in splits]))
    experts = tuple(
        Expert(vector.projection, vector.components[used].astype(np.float16), vector.gamma)
        for vector in projected.vectors
    )
    kept = []
    for split in splits:
        rows = [np.searchsorted(used, kernel.rows).astype(np.int32) for kernel in split.kernels]
        pairs = zip(split.kernels, rows, strict=True)
        kept.append(replace(split, kernels=tuple(replace(k, rows=own) for k, own in pairs)))
    return Ensemble(experts, tuple(kept))


def _fit_mixtures(
    fitted: ClosedForms, mos: np.ndarray, targets: Targets, count: int, settings: Fit
) -> tuple[dict[str, Mixture], HeldOut, gate.Curve]:
    """Fit a split's mixtures by VARIANTS; with the errors held out, and the gate's curve.

    `mos` is in units of the training deviations, that of the `count` training images first.
    """
    train, val = (
        gate.Side(
            torch.from_numpy(fitted.components[part]),
            torch.from_numpy(fitted.expert_scores[part]).float(),
            torch.from_numpy(mos[part]).float(),
            torch.from_numpy(targets.dataset_of[fitted.rows][part]),
        )
        for part in (slice(0, count), slice(count, None))
    )
    softmax = settings.gate == "softmax"
    mixtures = {
        variant: gate.constant_mixture(train, len(targets.datasets), softmax, experts)
        for variant, experts in VARIANTS.items()
    }
    mixtures[MIXTURE], curve = gate.train_gate(mixtures[CONSTANT], train, val, settings)
    scores = gate.scores(mixtures[MIXTURE], val)
    return mixtures, held_out(scores, val.mos, val.dataset), curve
