"""Poolings: hidden states of a text with an image to one vector, each a weight for each position.

As weights they can be summed over the parts of a text that are run at different times.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

POOLINGS = ("mean", "text_mean", "image_mean", "last")


def weights(poolings: Sequence[str], image: Tensor, lengths: Tensor) -> Tensor:
    """Give weights `(B, K, L)` of K poolings, float32; zero behind a text's end.

    Args:
        poolings: some of POOLINGS.
        image: which positions `(B, L)` hold the image.
        lengths: tokens `(B,)` of each text, image included.
    """
    position = torch.arange(image.shape[1], device=image.device)
    real = position < lengths[:, None]
    kinds = {
        "mean": real,
        "text_mean": real & ~image,
        "image_mean": real & image,
        "last": position == lengths[:, None] - 1,
    }
    chosen = torch.stack([kinds[pooling] for pooling in poolings], dim=1).float()
    return chosen / chosen.sum(dim=-1, keepdim=True).clamp_min(1)


class Vectors(NamedTuple):
    """What a prompt's texts become."""

    pooled: Tensor  # (B, layers + 1, K, D) float32; the last of the layers is the normed output
    last: Tensor  # (B, D): the output at the last position
    outputs: Tensor | None = None  # (B, L, D): at every position, where that was asked for


@dataclass(eq=False)
class PooledSums:
    """Vectors in the making: states of parts of the texts are added as they are run."""

    weights: Tensor  # (B, K, L), of `weights`
    lengths: Tensor
    pooled: Tensor | None = None
    last: Tensor | None = None
    outputs: list[Tensor] | None = None  # of each part; None: not wanted

    def add(self, states: Sequence[Tensor], start: int) -> None:
        """Add states `(B or 1, l, D)` of each layer, those of positions from `start` on."""
        stop = start + states[0].shape[1]
        share = self.weights[:, :, start:stop]
        pooled = torch.stack(
            [
                torch.einsum("bld,bkl->bkd", s.float().expand(len(share), -1, -1), share)
                for s in states
            ],
            dim=1,
        )
        self.pooled = pooled if self.pooled is None else self.pooled + pooled
        last = self.lengths - 1 - start  # counted from the first of these states
        within = (last >= 0) & (last < stop - start)
        rows = torch.arange(len(last), device=last.device)
        output = states[-1].expand(len(last), -1, -1)[rows, last.clamp(0, stop - start - 1)]
        self.last = output if self.last is None else torch.where(within[:, None], output, self.last)
        if self.outputs is not None:
            self.outputs.append(states[-1].expand(len(last), -1, -1))

    def vectors(self) -> Vectors:
        """Give the vectors, once all parts are added."""
        assert self.pooled is not None
        assert self.last is not None
        outputs = None if self.outputs is None else torch.cat(self.outputs, dim=1)
        return Vectors(self.pooled, self.last, outputs)
