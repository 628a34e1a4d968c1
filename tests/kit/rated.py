"""Scores of one target of one data set, as stage 2 takes them."""

import numpy as np

from agiqa.stage2.features import Targets


def one_target(mos: np.ndarray) -> Targets:
    """The scores `(N,)` of a data set without a name."""
    return Targets(mos[:, None], ("quality",), ("",), np.zeros(len(mos), dtype=np.intp))
