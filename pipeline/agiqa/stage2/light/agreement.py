"""How well scores of T targets agree with the MOS, where each data set is measured by itself.

What `ridge` and `kernel` choose by, and `gate` shows. With several data sets the mean of theirs
counts: across them neither ranks nor lines mean anything, for each has raters and its own scale.
"""

from collections.abc import Callable, Iterator

import numpy as np

from agiqa.data.metrics import plcc, srcc

Measure = Callable[[np.ndarray, np.ndarray], float]


def rank_agreement(
    mos: np.ndarray, score: np.ndarray, dataset: np.ndarray | None = None
) -> np.ndarray:
    """SRCC `(T,)` of scores `(n, T)`; nan where it is not defined.

    Args:
        mos: `(n, T)`, in any unit.
        score: `(n, T)`.
        dataset: which data set each image is of `(n,)`; None: all of one.
    """
    return measured(mos, score, dataset, srcc)


def agreement(mos: np.ndarray, score: np.ndarray, dataset: np.ndarray | None = None) -> np.ndarray:
    """SRCC + PLCC `(T,)`; arguments as `rank_agreement`."""
    return measured(mos, score, dataset, lambda a, b: srcc(a, b) + plcc(a, b))


def of_each(dataset: np.ndarray | None, count: int) -> Iterator[np.ndarray]:
    """Row numbers of each data set's images among `count`."""
    if dataset is None:
        yield np.arange(count)
        return
    for number in np.unique(dataset):
        yield np.flatnonzero(dataset == number)


def measured(
    mos: np.ndarray, score: np.ndarray, dataset: np.ndarray | None, measure: Measure
) -> np.ndarray:
    """Measure each target `(T,)`, the mean over data sets; arguments as `rank_agreement`."""
    by_dataset = [
        [measure(mos[rows, t], score[rows, t]) for t in range(mos.shape[1])]
        for rows in of_each(dataset, len(mos))
    ]
    return np.asarray(np.mean(by_dataset, axis=0))
