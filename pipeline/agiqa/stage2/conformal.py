"""Prediction intervals from the errors on images that a model was not fitted on.

For one split, split conformal prediction (Lei et al., JASA 113, 2018, section 2): the score, give
or take that error of its validation side which LEVEL of them stay below. For all splits together,
whose mean score a new image gets, CV+ (Barber et al., Annals of Statistics 49, 2021, section 3):
each split's score less and plus each of its errors, and of all of these the outer ones are cut off.
The validation side has chosen penalties and the gate, no more; that its images and new ones come
from one population is assumed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from agiqa.stage2.contract import Expected, of_arrays

LEVEL = 0.9  # share of the images whose MOS the intervals hold
CHUNK = 512  # images at once


@dataclass(frozen=True)
class HeldOut:
    """Absolute errors of a split's mixture on its validation side."""

    errors: np.ndarray  # (m, T) float32, in units of the training deviations
    dataset: np.ndarray  # (m,) int64, which data set each image is of

    def of(self, target: int, dataset: int) -> np.ndarray:
        """Errors `(m,)` in one target, of one data set's images."""
        return np.asarray(self.errors[self.dataset == dataset, target])

    def tensors(self) -> dict[str, Tensor]:
        """Name what a run keeps."""
        return of_arrays({"errors": self.errors, "dataset": self.dataset})

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Make it of `tensors` again."""
        return cls(tensors["errors"].numpy(), tensors["dataset"].numpy())

    @staticmethod
    def expected(images: int, targets: int) -> Expected:
        """Name the tensors for so many images."""
        return {"errors": (("F32",), (images, targets)), "dataset": (("I64",), (images,))}


def reach(errors: np.ndarray, level: float = LEVEL) -> float:
    """How far an interval reaches to either side of a score, by held-out errors `(m,)`.

    Infinite with fewer than level / (1 - level) of them: nine, for 90 %.
    """
    rank = math.ceil(round((len(errors) + 1) * level, 9))
    return math.inf if rank > len(errors) else float(np.partition(errors, rank - 1)[rank - 1])


def cv_plus(
    scores: np.ndarray, errors: Sequence[np.ndarray], level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends `(N,)` for images that S models score `(S, N)`.

    Args:
        scores: of models that were fitted without the images of their errors.
        errors: absolute errors of each model on its held-out images.
        level: of the interval. Where the errors are too few for it the ends are infinite.
    """
    count = sum(map(len, errors))
    rank = math.ceil(round((count + 1) * level, 9))  # of the upper ends, from the smallest
    if rank > count:
        ends = np.full(scores.shape[1], np.inf)
        return -ends, ends
    low, high = [], []
    for start in range(0, scores.shape[1], CHUNK):
        part = scores[:, start : start + CHUNK]
        pairs = list(zip(part, errors, strict=True))
        below = np.concatenate([own[:, None] - error for own, error in pairs], axis=1)
        above = np.concatenate([own[:, None] + error for own, error in pairs], axis=1)
        low.append(np.partition(below, count - rank, axis=1)[:, count - rank])
        high.append(np.partition(above, rank - 1, axis=1)[:, rank - 1])
    return np.concatenate(low), np.concatenate(high)


def held_out(score: Tensor, mos: Tensor, dataset: Tensor) -> HeldOut:
    """Errors of scores `(m, T)` against the MOS, both in units of the training deviations."""
    return HeldOut(torch.abs(score - mos).float().numpy(), dataset.numpy())
