"""What is fitted on one split in closed form: projections, kernel ridges and the ridge baselines.

Several targets share the projections and the kernels. Of many images a drawn part, the anchors,
carries what else would grow with the cube of their number (`kernel`, `ridge`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from agiqa.core.params import Fit
from agiqa.stage2.features import Features
from agiqa.stage2.light.kernel import fit_kernel_ridge
from agiqa.stage2.light.projection import Projection, fit_projection, moments
from agiqa.stage2.light.ridge import Gram, Ridge, decompose, fit_ridge, solver_of_many
from agiqa.stage2.light.split_model import RIDGES, Expert, SplitModel
from agiqa.stage2.targets import Scales, Side, Targets


@dataclass(frozen=True)
class SplitInputs:
    """What the mixtures are fitted on: one split's training and validation side."""

    rows: np.ndarray  # (m,) of the table
    components: list[np.ndarray]  # (m, k) of each expert's vector
    expert_scores: np.ndarray  # (m, E, T); those of training images are left-out ones


@dataclass(frozen=True)
class _Standardised:
    """An expert's vectors on the training side (n rows), then on the validation side."""

    values: np.ndarray  # (m, F), less `mean`, over `scale`
    mean: np.ndarray  # (F,) on the training side
    scale: np.ndarray  # (F,)

    @classmethod
    def of(cls, vectors: np.ndarray, train: np.ndarray, rows: np.ndarray) -> Self:
        mean, scale = moments(vectors[train])
        return cls((vectors[rows] - mean) / scale, mean, scale)

    def projection(
        self, count: int, anchors: np.ndarray | None, k: int, gram: Gram | None
    ) -> Projection:
        """Fit k components on the `count` training images, or on `anchors` where F is larger."""
        stand_in = anchors is not None and self.values.shape[1] > len(anchors)
        fitted_on = self.values[anchors] if stand_in else self.values[:count]
        return fit_projection(fitted_on, self.mean, self.scale, k, gram)


def fit_split(
    features: Features, targets: Targets, seed: int, side: Side, settings: Fit
) -> tuple[SplitModel, SplitInputs]:
    """Fit projections, ridges and kernel ridges of one split; the mixtures are not fitted yet."""
    train, val = side["train"], side["val"]
    rows, count = np.concatenate([train, val]), len(train)
    scales = Scales.of(targets, train)
    target = scales.standardise(targets.mos[rows], targets.dataset_of[rows])
    vectors = [_Standardised.of(each, train, rows) for each in features.vectors]
    anchors = _draw_anchors(count, settings.anchors, seed)
    ridges, gram = _fit_ridges(
        [each.values for each in vectors], target, count, targets.among(val),
        None if anchors is None else len(anchors),
    )  # fmt: skip
    experts, components, scores = [], [], []
    k = settings.components  # of the visual vectors, which come first
    for each in vectors:
        projection = each.projection(count, anchors, k, gram)
        projected = projection.project(each.values)
        kernel, left_out = fit_kernel_ridge(
            projected[:count], target[:count], targets.among(train), anchors=anchors
        )
        experts.append(Expert(projection, kernel))
        components.append(projected)
        scores.append(np.concatenate([left_out, kernel.predict(projected[count:])]))
        k, gram = settings.semantic_components, None
    split = SplitModel(seed, tuple(experts), ridges, scales, {})
    return split, SplitInputs(rows, components, np.stack(scores, axis=1))


def _draw_anchors(count: int, most: int, seed: int) -> np.ndarray | None:
    """Draw the training images that stand for all of them where the work grows with their cube.

    None: all of them, for there are no more than `most`, or `most` is 0.
    """
    if most == 0 or count <= most:
        return None
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def _fit_ridges(
    standardised: Sequence[np.ndarray],
    target: np.ndarray,
    count: int,
    val_dataset: np.ndarray | None,
    most: int | None,
) -> tuple[dict[str, Ridge], Gram | None]:
    """Fit the baselines on standardised vectors of `count` training images and the validation side.

    Returns:
        The ridges by RIDGES, and the decomposed visual inner products, which serve the projection
        too; None where eigenvectors of more than `most` rows would take too long.
    """
    train, val = [each[:count] for each in standardised], [each[count:] for each in standardised]
    solvers: dict[str, Gram] = {}
    if most is None:
        visual, *semantic = (each @ each.T for each in train)
        of_semantic = np.sum(semantic, axis=0)
        solvers = {
            "ridge": decompose(visual + of_semantic),
            "ridge_visual": decompose(visual),
            "ridge_semantic": decompose(of_semantic),
        }
    ridges = {}
    for name, seen in RIDGES.items():
        solver = solvers[name] if most is None else solver_of_many(train[seen], most)
        ridges[name] = fit_ridge(
            train[seen], solver, target[:count], val[seen], target[count:], val_dataset
        )
    return ridges, solvers.get("ridge_visual")
