"""What the pooled features of a layer become when one patch is left out of the pool.

Exact and without another look at the image: the mean and the deviation of the other patches follow
from the sums. The class token saw all patches and stays as it is.
"""

from collections.abc import Sequence

import numpy as np


def changes(patches: np.ndarray, pools: Sequence[str]) -> np.ndarray:
    """Pooled features without a patch less those with it, for each of n patches.

    Args:
        patches: hidden states `(n, C)` of one layer, n at least 3.
        pools: some of cls, mean, std, in the order of the features.

    Returns:
        `(n, pools * C)` float32; zero for cls.
    """
    count = len(patches)
    states = patches.astype(np.float64)
    off = states - states.mean(axis=0)
    squares = np.square(off)
    total = squares.sum(axis=0)
    rest = np.maximum(total - squares * (count / (count - 1)), 0)
    found = {
        "cls": np.zeros_like(off),
        "mean": -off / (count - 1),
        "std": np.sqrt(rest / (count - 2)) - np.sqrt(total / (count - 1)),
    }
    return np.concatenate([found[pool] for pool in pools], axis=1).astype(np.float32)
