"""What is fitted in closed form: projections that all splits share, kernels and ridges of each.

Several targets share the projections and the kernels. Of many images a drawn part, the anchors,
carries what else would grow with the cube of their number (`kernel`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from agiqa.core.params import Fit
from agiqa.stage2.features import Features
from agiqa.stage2.light.expert import BLOCK, Projection, fit_projection
from agiqa.stage2.light.kernel import KernelRidge, fit_kernel_ridge, gaussian, usual_gamma
from agiqa.stage2.light.ridge import Ridge, fit_ridge
from agiqa.stage2.light.split_model import RIDGES
from agiqa.stage2.targets import Side, Sides, Targets


@dataclass(frozen=True)
class ProjectedVector:
    """R images under the projection of one expert's vector."""

    projection: Projection
    components: np.ndarray  # (R, k)
    gamma: float  # of the kernel

    @property
    def gain(self) -> float:
        """What makes a component weigh as much in a ridge as a feature of any other vector."""
        return float((len(self.projection.mean) / self.components.shape[1]) ** 0.5)


@dataclass(frozen=True)
class Projected:
    """The images that any split trains or validates on, under the projections."""

    rows: np.ndarray  # (R,) of the table, in an order by chance: the first are anchors
    vectors: tuple[ProjectedVector, ...]

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
    projected = []
    for vectors, k in zip(features.vectors, kept, strict=True):
        projection = fit_projection(vectors[sample], k)
        blocks = np.array_split(rows, len(rows) // BLOCK + 1)  # never a copy of all vectors
        components = np.concatenate([projection.apply(vectors[block]) for block in blocks])
        gamma = usual_gamma(components[: len(sample)])
        projected.append(ProjectedVector(projection, components, gamma))
    return Projected(rows, tuple(projected))


@dataclass(frozen=True)
class ClosedForms:
    """One split's kernels and ridges, and what its mixtures are fitted on."""

    kernels: tuple[KernelRidge, ...]  # their anchors among `Projected.rows`
    ridges: dict[str, Ridge]  # by RIDGES
    rows: np.ndarray  # (m,) of the table: the training side, then the validation side
    components: np.ndarray  # (m, k) of all experts side by side
    expert_scores: np.ndarray  # (m, E, T); those of training images are left-out ones


def fit_split(
    projected: Projected, target: np.ndarray, targets: Targets, side: Side, settings: Fit
) -> ClosedForms:
    """Fit kernel ridges and ridges of one split.

    Args:
        projected: all images that it may see.
        target: their scores in units of the training deviations, training side first `(m, T)`.
        targets: the scores as they are.
        side: row numbers of train and val.
        settings: `params.yaml`, section fit.
    """
    rows, count = np.concatenate([side["train"], side["val"]]), len(side["train"])
    places = projected.places(rows)
    anchors = None
    if 0 < settings.anchors < count:  # the first in the order by chance, in that of the side
        anchors = np.sort(np.argsort(places[:count])[: settings.anchors])
    kernels, scores = [], []
    for vector in projected.vectors:
        own = vector.components[places]
        ridge, left_out = fit_kernel_ridge(
            own[:count],
            target[:count],
            vector.gamma,
            targets.among(side["train"]),
            anchors=anchors,
            groups=targets.held_apart(side["train"], side["val"]),
        )
        train, val = torch.from_numpy(own[:count]).half().double(), torch.from_numpy(own[count:])
        val_kernel = gaussian(val.double(), train, vector.gamma)
        scores.append(np.concatenate([left_out, ridge.scores(val_kernel)]))
        kernels.append(replace(ridge, rows=places[ridge.rows].astype(np.int32)))
    return ClosedForms(
        tuple(kernels),
        _fit_ridges(projected.vectors, places, target, count, targets.among(side["val"])),
        rows,
        np.concatenate([vector.components[places] for vector in projected.vectors], axis=1),
        np.stack(scores, axis=1),
    )


def _fit_ridges(
    vectors: Sequence[ProjectedVector],
    places: np.ndarray,
    target: np.ndarray,
    count: int,
    val_dataset: np.ndarray | None,
) -> dict[str, Ridge]:
    """Fit the baselines on the images at `places`, of which the first `count` are for training."""
    ridges = {}
    for name, visible in RIDGES.items():
        own = vectors[visible]
        gains = np.concatenate([np.full(v.components.shape[1], v.gain) for v in own])
        features = np.concatenate([vector.components[places] for vector in own], axis=1) * gains
        ridge = fit_ridge(
            features[:count], target[:count], features[count:], target[count:], val_dataset
        )
        weights = (ridge.weights * gains[:, None]).astype(np.float32)
        ridges[name] = replace(ridge, weights=weights)
    return ridges
