"""What the images were rated: T targets each, on the scale of the data set that an image is of.

The other half of what stage 2 sees, beside `features`. Several data sets keep their scales: each
has its own mean and deviation on the training side, and what is learnt is in units of those.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from agiqa.core.errors import AgiqaError

Side = Mapping[str, np.ndarray]  # row numbers of train, val and test
Sides = Mapping[int, Side]  # by split seed


@dataclass(frozen=True)
class Targets:
    """One row for each row of the features."""

    mos: np.ndarray  # (N, T) float64
    names: tuple[str, ...]  # of the T targets
    datasets: tuple[str, ...]  # names of the D data sets
    dataset_of: np.ndarray  # (N,) int: which of them each image is of
    groups: np.ndarray | None = None  # (N,) int: which group, such as a prompt; None: not known

    def among(self, rows: np.ndarray) -> np.ndarray | None:
        """Tell which data set the images `rows` are of; None where there is but one."""
        return self.dataset_of[rows] if len(self.datasets) > 1 else None

    def held_apart(self, train: np.ndarray, val: np.ndarray) -> np.ndarray | None:
        """Groups of the images `train` where none of them has images in `val`, as in testing then.

        None: groups are not held apart, or there are none.
        """
        if self.groups is None or np.isin(self.groups[val], self.groups[train]).any():
            return None
        return np.asarray(self.groups[train])


@dataclass(frozen=True)
class Scales:
    """Each data set's mean and deviation of each target, on a training side."""

    mean: np.ndarray  # (D, T)
    sd: np.ndarray  # (D, T)

    @classmethod
    def of(cls, targets: Targets, rows: np.ndarray) -> Self:
        """Measure the images `rows`, which each data set must have some of."""
        own = [
            targets.mos[rows[targets.dataset_of[rows] == d]] for d in range(len(targets.datasets))
        ]
        return cls(
            np.stack([mos.mean(axis=0) for mos in own]), np.stack([mos.std(axis=0) for mos in own])
        )

    def standardise(self, mos: np.ndarray, dataset_of: np.ndarray) -> np.ndarray:
        """MOS `(n, T)` of images of the data sets `(n,)`, in units of their deviations."""
        return np.asarray((mos - self.mean[dataset_of]) / self.sd[dataset_of])

    def restore(self, score: np.ndarray, dataset: int) -> np.ndarray:
        """Scores `(..., T)` in those units, on the scale of one data set."""
        return np.asarray(score * self.sd[dataset] + self.mean[dataset])


def require_images(targets: Targets, sides: Sides, least: Mapping[str, int], why: str = "") -> None:
    """Refuse splits with fewer images of a side than `least`, or whose scores are all the same.

    Of each data set, where there are several.

    Raises:
        AgiqaError: names the split; `why` ends the message of too few.
    """
    for seed, side in sides.items():
        for number, dataset in enumerate(targets.datasets):
            split = f"split {seed}" + (f" of '{dataset}'" if len(targets.datasets) > 1 else "")
            own = {name: side[name][targets.dataset_of[side[name]] == number] for name in least}
            for name, count in least.items():
                if len(own[name]) < count:
                    raise AgiqaError(
                        f"S{split[1:]} has {len(own[name])} {name} images; fit needs at least "
                        f"{count}{why}."
                    )
            for column, target in enumerate(targets.names):
                if float(np.ptp(targets.mos[own["train"], column])) == 0:
                    raise AgiqaError(
                        f"All training images of {split} have the same score '{target}'."
                    )
