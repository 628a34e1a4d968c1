"""What the images were rated: T targets each, on the scale of the data set that an image is of.

The other half of what stage 2 sees, beside `features`. Several data sets keep their scales: each
has its own mean and deviation on the training side, and what is learnt is in units of those.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Truth:
    """One row for each row of the features."""

    mos: np.ndarray  # (N, T) float64
    targets: tuple[str, ...]  # names of the T targets
    datasets: tuple[str, ...]  # names of the D data sets
    of: np.ndarray  # (N,) int: which of them each image is of

    def among(self, rows: np.ndarray) -> np.ndarray | None:
        """Which data set the images `rows` are of, or None where there is but one."""
        return self.of[rows] if len(self.datasets) > 1 else None


def one_scale(mos: np.ndarray, target: str = "quality", dataset: str = "") -> Truth:
    """The truth of one data set and one target, from its scores `(N,)`."""
    return Truth(mos[:, None], (target,), (dataset,), np.zeros(len(mos), dtype=np.intp))


@dataclass(frozen=True)
class Scales:
    """Each data set's mean and deviation of each target, on a training side."""

    mean: np.ndarray  # (D, T)
    sd: np.ndarray  # (D, T)

    def standardise(self, mos: np.ndarray, of: np.ndarray) -> np.ndarray:
        """MOS `(n, T)` of images of the data sets `of` `(n,)`, in units of their deviations."""
        return np.asarray((mos - self.mean[of]) / self.sd[of])

    def restore(self, score: np.ndarray, dataset: int) -> np.ndarray:
        """Scores `(..., T)` in those units, on the scale of one data set."""
        return np.asarray(score * self.sd[dataset] + self.mean[dataset])


def scales(truth: Truth, rows: np.ndarray) -> Scales:
    """Means and deviations of the images `rows`, which each data set must have some of."""
    own = [truth.mos[rows[truth.of[rows] == d]] for d in range(len(truth.datasets))]
    return Scales(
        np.stack([each.mean(axis=0) for each in own]), np.stack([each.std(axis=0) for each in own])
    )
