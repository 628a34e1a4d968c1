"""What a fit yields and how it scores: per split a projection and ridges, and stacked regressors.

The unit that a run folder stores and that evaluate and score use; `training` makes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agiqa.stage2.light.kernel import KernelRidge
from agiqa.stage2.light.moe import MixtureOfExperts, Prediction
from agiqa.stage2.light.projection import Projection
from agiqa.stage2.light.ridge import Ridge
from agiqa.stage2.targets import Scales

VARIANTS = ("moe", "visual", "semantic")  # regressors: both inputs, or one of them
RIDGES = ("ridge", "ridge_visual", "ridge_semantic")


@dataclass(frozen=True)
class SplitModel:
    """What is fitted on one split before the regressors."""

    seed: int
    visual: Projection
    semantic: tuple[Projection, ...]  # one for each prompt
    kernels: tuple[KernelRidge, ...]  # one for each expert: visual, then each prompt
    ridges: Mapping[str, Ridge]  # by RIDGES; in units of the training deviations, as the kernels
    scales: Scales  # of the training side


@dataclass(frozen=True)
class Ensemble:
    """S splits with K members each."""

    splits: tuple[SplitModel, ...]
    regressors: Mapping[str, MixtureOfExperts]  # by VARIANTS; S * K models stacked
    members: int

    def predict(
        self, visual: np.ndarray, semantic: np.ndarray, variant: str = "moe", dataset: int = 0
    ) -> Prediction:
        """Scores on the MOS scale for N images.

        Args:
            visual: vectors `(N, F)`.
            semantic: vectors `(N, P, D)`.
            variant: which regressor.
            dataset: on whose scale, where the run was trained on several data sets.

        Returns:
            score `(S, K, N, T)` and gate `(S, K, N, E, T)`.
        """
        inputs = project(self.splits, visual, semantic)
        rows = [np.arange(len(visual))] * len(self.splits)
        which = np.full(len(visual), dataset)
        raw = predict_rows(self.regressors[variant], inputs, rows, self.members, variant, which)
        shape = (len(self.splits), self.members)
        mean, sd = (
            torch.from_numpy(np.stack([part[dataset] for part in parts])).float()[:, None, None]
            for parts in (
                [split.scales.mean for split in self.splits],
                [split.scales.sd for split in self.splits],
            )
        )
        return Prediction(raw.score.unflatten(0, shape) * sd + mean, raw.gate.unflatten(0, shape))


@dataclass(frozen=True)
class Inputs:
    """What the regressors see of N images under every split's projections and kernel ridges."""

    visual: Tensor  # (S, N, k)
    semantic: Tensor  # (S, N, P, k')
    opinions: Tensor  # (S, N, E, T), in units of the training deviation

    def take(self, split: Tensor, rows: Tensor, variant: str) -> dict[str, Tensor | None]:
        """Inputs of M regressors for a variant: `split` `(M, 1)` and `rows` `(M, B)` pick them."""
        experts = {"visual": slice(0, 1), "semantic": slice(1, None)}.get(variant, slice(None))
        return {
            "visual": self.visual[split, rows] if variant != "semantic" else None,
            "semantic": self.semantic[split, rows] if variant != "visual" else None,
            "opinions": self.opinions[split, rows][..., experts, :],
        }


def project(splits: Sequence[SplitModel], visual: np.ndarray, semantic: np.ndarray) -> Inputs:
    """Visual `(N, F)` and semantic `(N, P, D)` vectors through each split's own machinery."""
    seen = np.stack([split.visual.apply(visual) for split in splits])
    said = [
        np.stack([each.apply(semantic[:, p]) for p, each in enumerate(split.semantic)], axis=1)
        for split in splits
    ]
    opinions = [
        np.stack(
            [
                kernel.predict(vectors)
                for kernel, vectors in zip(
                    split.kernels, [seen[place], *np.moveaxis(said[place], 1, 0)], strict=True
                )
            ],
            axis=1,
        )
        for place, split in enumerate(splits)
    ]
    return Inputs(
        torch.from_numpy(seen),
        torch.from_numpy(np.stack(said)),
        torch.from_numpy(np.stack(opinions)),
    )


def ridge_inputs(
    split: SplitModel, visual: np.ndarray, semantic: np.ndarray
) -> dict[str, np.ndarray]:
    """Standardised features `(N, F)` of each ridge of a split."""
    seen = split.visual.standardise(visual)
    said = np.concatenate(
        [each.standardise(semantic[:, p]) for p, each in enumerate(split.semantic)], axis=1
    )
    both = np.concatenate([seen, said], axis=1)
    return {"ridge": both, "ridge_visual": seen, "ridge_semantic": said}


def predict_rows(
    regressor: MixtureOfExperts,
    inputs: Inputs,
    rows: Sequence[np.ndarray],
    members: int,
    variant: str,
    dataset: np.ndarray,
    chunk: int = 512,
) -> Prediction:
    """Scores `(S * K, n, T)` and gates of each split's own rows, in units of training deviations.

    Sides of unequal length are padded with their first row; cut the result to each length.

    Args:
        regressor: S * K models.
        inputs: of N images.
        rows: the rows of each of the S splits.
        members: K.
        variant: which inputs.
        dataset: on whose scale each of the N images is scored `(N,)`.
        chunk: images at once.
    """
    regressor.eval()
    longest = max(map(len, rows))
    padded = np.stack([np.concatenate([r, np.repeat(r[:1], longest - len(r))]) for r in rows])
    index = torch.from_numpy(padded).repeat_interleave(members, dim=0)
    split = torch.arange(len(rows)).repeat_interleave(members)[:, None]
    which = torch.from_numpy(dataset)
    parts: list[Prediction] = []
    with torch.inference_mode():
        for start in range(0, longest, chunk):
            chosen = index[:, start : start + chunk]
            found = regressor(**inputs.take(split, chosen, variant))
            parts.append(Prediction(regressor.on_scale(found.score, which[chosen]), found.gate))
    return Prediction(
        torch.cat([part.score for part in parts], dim=1),
        torch.cat([part.gate for part in parts], dim=1),
    )
