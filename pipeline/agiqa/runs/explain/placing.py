"""Values of patches that a model saw, placed on one grid over the whole image.

A patch's value is shared out by the area of its overlap with each cell, so that sums are kept: two
views of an image, of other sizes and parts of it, may be added.
"""

import numpy as np

Box = tuple[float, float, float, float]  # left, top, right, bottom in shares of the image


def placed(values: np.ndarray, box: Box, side: int) -> np.ndarray:
    """Patches `(h, w)` over `box` to cells `(side, side)` over the whole image."""
    left, top, right, bottom = box
    rows, columns = values.shape
    down, across = _shares(rows, top, bottom, side), _shares(columns, left, right, side)
    return np.asarray(down @ values @ across.T)


def _shares(patches: int, start: float, end: float, side: int) -> np.ndarray:
    """`(side, patches)`: the share of each patch's length that lies in each cell."""
    edges, cells = np.linspace(start, end, patches + 1), np.linspace(0, 1, side + 1)
    length = np.minimum(cells[1:, None], edges[None, 1:]) - np.maximum(
        cells[:-1, None], edges[None, :-1]
    )
    return np.asarray(np.clip(length, 0, None) * (patches / (end - start)))
