"""What is fitted on one split in closed form: projections, kernel ridges and the ridge baselines.

Several targets share the projections and the kernels. Of many images a drawn part, the anchors,
carries what else would grow with the cube of their number (`model.kernel`, `model.ridge`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agiqa.core.params import Fit
from agiqa.stage2.features import Features
from agiqa.stage2.light.ensemble import RIDGES, SplitModel
from agiqa.stage2.light.kernel import fit_kernel_ridge
from agiqa.stage2.light.projection import fit_projection, moments
from agiqa.stage2.light.ridge import Gram, Ridge, Solver, decompose, fit_ridge, solver_of_many
from agiqa.stage2.targets import Truth, scales


@dataclass(frozen=True)
class Known:
    """What the regressors may see of one split: its training and validation side."""

    rows: np.ndarray  # (m,) of the table
    components: list[np.ndarray]  # (m, k) of each expert's vector
    opinions: np.ndarray  # (m, E, T); those of training images are left-out ones


def fit_split(
    features: Features, truth: Truth, seed: int, side: Mapping[str, np.ndarray], settings: Fit
) -> tuple[SplitModel, Known]:
    """Projections, ridges and kernel ridges of one split."""
    train, val = side["train"], side["val"]
    rows, count = np.concatenate([train, val]), len(train)
    vectors = [features.visual, *np.moveaxis(features.semantic, 1, 0)]
    found = [moments(each[train]) for each in vectors]
    standardised = [
        (each[rows] - mean) / scale for each, (mean, scale) in zip(vectors, found, strict=True)
    ]
    own = scales(truth, train)
    target = own.standardise(truth.mos[rows], truth.of[rows])
    anchors = _draw_anchors(count, settings.anchors, seed)
    sides = target[:count], target[count:], truth.among(val)
    ridges, gram = _fit_ridges(standardised, *sides, None if anchors is None else len(anchors))
    projections = [
        fit_projection(
            each[:count] if anchors is None or each.shape[1] <= len(anchors) else each[anchors],
            mean,
            scale,
            k,
            inner,
        )
        for each, (mean, scale), k, inner in zip(
            standardised,
            found,
            [settings.components] + [settings.semantic_components] * (len(vectors) - 1),
            [gram] + [None] * (len(vectors) - 1),
            strict=True,
        )
    ]
    components = [p.project(each) for p, each in zip(projections, standardised, strict=True)]
    kernels, opinions = [], []
    for each in components:
        kernel, left_out = fit_kernel_ridge(
            each[:count], target[:count], truth.among(train), anchors=anchors
        )
        kernels.append(kernel)
        opinions.append(np.concatenate([left_out, kernel.predict(each[count:])]))
    split = SplitModel(
        seed=seed,
        visual=projections[0],
        semantic=tuple(projections[1:]),
        kernels=tuple(kernels),
        ridges=ridges,
        scales=own,
    )
    return split, Known(rows, components, np.stack(opinions, axis=1))


def _draw_anchors(count: int, most: int, seed: int) -> np.ndarray | None:
    """Rows of the training images that stand for all of them where the work grows with their cube.

    None: all of them, for there are no more than `most`, or `most` is 0.
    """
    if most == 0 or count <= most:
        return None
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def _fit_ridges(
    standardised: Sequence[np.ndarray],
    target: np.ndarray,
    val_target: np.ndarray,
    val_dataset: np.ndarray | None,
    most: int | None,
) -> tuple[dict[str, Ridge], Gram | None]:
    """The baselines on standardised vectors of training and validation side, in this order.

    Returns:
        The ridges by RIDGES, and the visual inner products, which serve the projection too; None
        where there are more than `most` images.
    """
    count = len(target)
    train, val = [each[:count] for each in standardised], [each[count:] for each in standardised]
    rest = (val_target, val_dataset)

    def fitted(parts: slice, solver: Solver) -> Ridge:
        return fit_ridge(train[parts], solver, target, val[parts], *rest)

    every, seen, said = slice(None), slice(0, 1), slice(1, None)
    if most is not None:
        return {
            name: fitted(parts, solver_of_many(train[parts], most))
            for name, parts in zip(RIDGES, (every, seen, said), strict=True)
        }, None
    inner = [each @ each.T for each in train]
    gram, of_said = decompose(inner[0]), np.sum(inner[1:], axis=0)
    return {
        "ridge": fitted(every, decompose(inner[0] + of_said)),
        "ridge_visual": fitted(seen, gram),
        "ridge_semantic": fitted(said, decompose(of_said)),
    }, gram
