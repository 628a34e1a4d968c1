"""Cached pixels to the regressor's input, with the flips and turns of training on the way.

The random draws are made for a whole step on the CPU, so that they do not depend on how many
processes share it; the pixels are turned where they are used. After MA-AGIQA's utils/process.py,
whose "horizontal" flip acts on a channels-first array and so turns images upside down.
"""

import numpy as np
import torch
from torch import Tensor

from agiqa.stage2.presets import Recipe

# Of the uint8 pixels (B, H, W, 3).
FLIPS = {"vertical": 0, "horizontal": 1}  # axis of one image (H, W, 3)
TURNS = (0.33, 0.33, 0.34)  # the authors' shares of 90, 180 and 270 degrees


def draw(count: int, recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """Draw what happens to images: quarter turns, 0 to 3, then whether to flip: `(count, 2)`."""
    turned = rng.random(count) < recipe.augment
    turns = rng.choice([1, 2, 3], size=count, p=TURNS)
    flipped = rng.random(count) < recipe.augment
    return np.stack(
        [np.where(turned & recipe.rotate, turns, 0), flipped & (recipe.flip in FLIPS)], axis=1
    )


def augment(pixels: Tensor, draws: np.ndarray, flip: str) -> Tensor:
    """Pixels `(B, S, S, 3)` turned and flipped as drawn `(B, 2)`."""
    images = []
    for image, (turns, flipped) in zip(pixels, draws, strict=True):
        turned = torch.rot90(image, int(turns), dims=(0, 1)) if turns else image
        images.append(turned.flip(FLIPS[flip]) if flipped else turned)
    return torch.stack(images)


def as_input(pixels: Tensor) -> Tensor:
    """Pixels `(B, H, W, 3)` of 0 to 255 to what the regressor takes, `(B, 3, H, W)` in [−1, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
