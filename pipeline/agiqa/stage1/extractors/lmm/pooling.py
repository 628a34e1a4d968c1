"""Poolings: hidden states of a text with an image to one vector, each a weight for each position.

As weights they can be summed over the parts of a text that are run at different times.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

POOLINGS = ("mean", "text_mean", "image_mean", "last")


def weights(poolings: Sequence[str], image: Tensor, lengths: Tensor) -> Tensor:
    """Weights `(B, K, L)` of K poolings, float32; zero behind a text's end.

    Args:
        poolings: some of POOLINGS.
        image: which positions `(B, L)` hold the image.
        lengths: tokens `(B,)` of each text, image included.
    """
    place = torch.arange(image.shape[1], device=image.device)
    real = place < lengths[:, None]
    kinds = {
        "mean": real,
        "text_mean": real & ~image,
        "image_mean": real & image,
        "last": place == lengths[:, None] - 1,
    }
    chosen = torch.stack([kinds[pooling] for pooling in poolings], dim=1).float()
    return chosen / chosen.sum(dim=-1, keepdim=True).clamp_min(1)
