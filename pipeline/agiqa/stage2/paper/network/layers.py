"""What the ViT and the Swin stages share: the MLP, and trading time for memory in training."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

Activation = Callable[[Tensor], Tensor]


class Mlp(nn.Module):
    """Two linear layers, an exact GELU or another bend between: `(..., C)` to `(..., C)`."""

    def __init__(self, width: int, hidden: int, bend: Activation = functional.gelu) -> None:
        super().__init__()
        self.bend = bend
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Expand the tokens, apply the activation, contract them."""
        contracted: Tensor = self.contract(self.bend(self.expand(x)))
        return contracted


def run(module: nn.Module, x: Tensor, save_memory: bool) -> Tensor:
    """`module(x)`; to save memory, what its backward pass needs is computed again there."""
    if save_memory and torch.is_grad_enabled():
        again: Tensor = checkpoint(module, x, use_reentrant=False)
        return again
    result: Tensor = module(x)
    return result
