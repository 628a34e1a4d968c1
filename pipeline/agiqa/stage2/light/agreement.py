"""How well scores of T targets agree with the MOS, where each data set is measured by itself.

What `ridge` and `kernel` choose by, and `gate` shows. With several data sets the mean of theirs
counts: across them neither ranks nor lines mean anything, for each has raters and its own scale.
"""

from collections.abc import Callable

import numpy as np

from agiqa.data.metrics import plcc, srcc

Measure = Callable[[np.ndarray, np.ndarray], float]


def measured(
    mos: np.ndarray, score: np.ndarray, dataset: np.ndarray | None, measure: Measure
) -> np.ndarray:
    """Measure each target `(T,)`, the mean over data sets; nan where it is not defined.

    Args:
        mos: `(n, T)`, in any unit.
        score: `(n, T)`.
        dataset: which data set each image is of `(n,)`; None: all of one.
        measure: of one target's MOS and scores.
    """
    of = np.zeros(len(mos)) if dataset is None else dataset
    by_dataset = [
        [measure(mos[of == one, t], score[of == one, t]) for t in range(mos.shape[1])]
        for one in np.unique(of)
    ]
    return np.asarray(np.mean(by_dataset, axis=0))


def agreement(mos: np.ndarray, score: np.ndarray, dataset: np.ndarray | None = None) -> np.ndarray:
    """SRCC + PLCC `(T,)`; arguments as `measured`."""
    return measured(mos, score, dataset, lambda a, b: srcc(a, b) + plcc(a, b))
