"""Stage 2, `fit` with the preset `light`: projections, experts, ridges and mixtures of every split.

Projections are shared by all splits, kernels and ridges are each split's, all in closed form; the
mixture of the experts' scores and its gate follow (`mixture`). The training side fits everything,
the validation side alone picks penalties and says whether a gate is worth having; the test side is
not touched here. A split is fitted after another, so that ten need hardly more memory than one.

Several targets share the projections and the kernels. Images of several data sets train together,
each on the scale of its own (`Scales`): errors are in units of that data set's deviation. Of many
images a drawn part, the anchors, carries what else would grow with the cube of their number
(`ridge`).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from agiqa.core.params import Fit
from agiqa.core.progress import track
from agiqa.stage2.contract import held_out
from agiqa.stage2.features import Features, Scales, Side, Sides, Targets, require_images
from agiqa.stage2.light.ensemble import (
    BLOCK,
    RIDGES,
    VARIANTS,
    Ensemble,
    Expert,
    SplitModel,
    fit_projection,
)
from agiqa.stage2.light.mixture import (
    Curve,
    SideScores,
    constant_mixture,
    mixture_scores,
    train_gate,
)
from agiqa.stage2.light.ridge import (
    KernelRidge,
    Ridge,
    fit_kernel_ridge,
    fit_ridge,
    gaussian,
    usual_gamma,
)
from agiqa.stage2.presets import CONSTANT, MIXTURE

log = logging.getLogger(__name__)

LEAST = {"train": 8, "val": 2}  # images a split needs


@dataclass(frozen=True)
class Projected:
    """The images that any split trains or validates on, under the projections."""

    rows: np.ndarray  # (R,) of the table, in an order by chance: the first are anchors
    experts: tuple[Expert, ...]  # with the components of all R images for anchors, in float32

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Where images of the table stand among `rows`."""
        order = np.argsort(self.rows)
        return order[np.searchsorted(self.rows, rows, sorter=order)]


def project(features: Features, sides: Sides, settings: Fit) -> Projected:
    """Fit the projections, on as many images as may be anchors, and project the images.

    Without a score, and on all splits' training and validation sides: the vectors of an image that
    one split tests take part where another trains on it.
    """
    parts = [side[name] for side in sides.values() for name in ("train", "val")]
    known = np.unique(np.concatenate(parts))
    rows = np.random.default_rng(settings.seed).permutation(known)
    sample = rows[: settings.anchors or None]
    kept = [settings.components, *[settings.semantic_components] * len(features.prompts)]
    experts = []
    for vectors, k in zip(features.vectors, kept, strict=True):
        projection = fit_projection(vectors[sample], k)
        blocks = np.array_split(rows, len(rows) // BLOCK + 1)  # never a copy of all vectors
        components = np.concatenate([projection.apply(vectors[block]) for block in blocks])
        gamma = usual_gamma(components[: len(sample)])
        experts.append(Expert(projection, components, gamma))
    return Projected(rows, tuple(experts))


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
    for seed, side in track(list(sides.items()), "Fit"):
        split, curve = _fit_split(projected, targets, seed, side, settings)
        splits.append(split)
        curves += [{"model": MIXTURE, "seed": seed, **row} for row in curve]
    return _with_anchors(projected, splits), curves


def _fit_split(
    projected: Projected, targets: Targets, seed: int, side: Side, settings: Fit
) -> tuple[SplitModel, Curve]:
    """Fit kernel ridges, ridges and mixtures of one split; with the gate's curve."""
    rows, count = np.concatenate([side["train"], side["val"]]), len(side["train"])
    places, scales = projected.places(rows), Scales.of(targets, side["train"])
    mos = scales.standardise(targets.mos[rows], targets.dataset_of[rows])
    kernels, expert_scores = _fit_kernels(projected, places, mos, targets, side, settings)
    among = targets.among(side["val"])
    ridges = _fit_ridges(projected.experts, places, mos, count, among)
    components = [expert.anchors[places] for expert in projected.experts]
    train, val = (
        SideScores(
            torch.from_numpy(np.concatenate([own[part] for own in components], axis=1)),
            torch.from_numpy(expert_scores[part]).float(),
            torch.from_numpy(mos[part]).float(),
            torch.from_numpy(targets.dataset_of[rows][part]),
        )
        for part in (slice(0, count), slice(count, None))
    )
    softmax = settings.gate == "softmax"
    mixtures = {
        variant: constant_mixture(train, len(targets.datasets), softmax, experts)
        for variant, experts in VARIANTS.items()
    }
    mixtures[MIXTURE], curve = train_gate(mixtures[CONSTANT], train, val, settings)
    errors = held_out(mixture_scores(mixtures[MIXTURE], val), val.mos, val.dataset)
    return SplitModel(seed, kernels, ridges, scales, mixtures, errors), curve


def _fit_kernels(
    projected: Projected,
    places: np.ndarray,
    mos: np.ndarray,
    targets: Targets,
    side: Side,
    settings: Fit,
) -> tuple[tuple[KernelRidge, ...], np.ndarray]:
    """Fit a kernel ridge on each expert's vector, its anchors among `Projected.rows`.

    Args:
        projected: all images that a split may see.
        places: where those of this split stand there `(m,)`, the training side first.
        mos: their scores in units of the training deviations `(m, T)`.
        targets: the scores as they are.
        side: row numbers of train and val.
        settings: `params.yaml`, section fit.

    Returns:
        The kernel ridges, and their scores `(m, E, T)`; those of training images are left-out ones.
    """
    count, anchors = len(side["train"]), None
    if 0 < settings.anchors < count:  # the first in the order by chance, in that of the side
        anchors = np.sort(np.argsort(places[:count])[: settings.anchors])
    kernels, scores = [], []
    for expert in projected.experts:
        own = expert.anchors[places]
        ridge, left_out = fit_kernel_ridge(
            own[:count],
            mos[:count],
            expert.gamma,
            targets.among(side["train"]),
            anchors=anchors,
            groups=targets.held_apart(side["train"], side["val"]),
        )
        train, val = torch.from_numpy(own[:count]).half().double(), torch.from_numpy(own[count:])
        val_kernel = gaussian(val.double(), train, expert.gamma)
        scores.append(np.concatenate([left_out, ridge.scores(val_kernel)]))
        kernels.append(replace(ridge, rows=places[ridge.rows].astype(np.int32)))
    return tuple(kernels), np.stack(scores, axis=1)


def _fit_ridges(
    experts: Sequence[Expert],
    places: np.ndarray,
    target: np.ndarray,
    count: int,
    val_dataset: np.ndarray | None,
) -> dict[str, Ridge]:
    """Fit the baselines on the images at `places`, of which the first `count` are for training."""
    ridges = {}
    for name, visible in RIDGES.items():
        own = experts[visible]
        gains = np.concatenate([np.full(e.anchors.shape[1], e.gain) for e in own])
        features = np.concatenate([expert.anchors[places] for expert in own], axis=1) * gains
        ridge = fit_ridge(
            features[:count], target[:count], features[count:], target[count:], val_dataset
        )
        weights = (ridge.weights * gains[:, None]).astype(np.float32)
        ridges[name] = replace(ridge, weights=weights)
    return ridges


def _with_anchors(projected: Projected, splits: Sequence[SplitModel]) -> Ensemble:
    """Keep the components of those images that some split's kernels stand on."""
    used = np.unique(np.concatenate([split.kernels[0].rows for split in splits]))
    experts = tuple(
        replace(expert, anchors=expert.anchors[used].astype(np.float16))
        for expert in projected.experts
    )
    kept = []
    for split in splits:
        kernels = (
            replace(kernel, rows=np.searchsorted(used, kernel.rows).astype(np.int32))
            for kernel in split.kernels
        )
        kept.append(replace(split, kernels=tuple(kernels)))
    return Ensemble(experts, tuple(kept))
