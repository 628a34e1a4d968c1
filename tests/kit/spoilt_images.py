"""Pictures spoilt in a known place, and where the run that was fitted on them lies."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, CELLS = 64, 8  # the tiny tower sees 8 x 8 patches of 8 pixels


@dataclass(frozen=True)
class World:
    """Where the run and its cache are."""

    folder: Path
    run: Path
    cache: Path
    images: Path


def spoilt(seed: int) -> tuple[Image.Image, np.ndarray]:
    """A smooth picture with a block of noise, and which cells `(8, 8)` the noise covers."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    slopes = rng.uniform(-40, 40, (2, 3))
    smooth = 128 + x[..., None] * slopes[0] + y[..., None] * slopes[1]
    height, width = rng.integers(1, 6, 2)
    top, left = rng.integers(0, CELLS - height + 1), rng.integers(0, CELLS - width + 1)
    cells = np.zeros((CELLS, CELLS), dtype=bool)
    cells[top : top + height, left : left + width] = True
    mask = np.kron(cells, np.ones((SIDE // CELLS, SIDE // CELLS)))[..., None] > 0
    noise = rng.integers(0, 256, smooth.shape)
    return Image.fromarray(np.uint8(np.where(mask, noise, smooth))), cells
