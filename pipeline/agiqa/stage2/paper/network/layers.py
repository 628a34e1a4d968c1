"""What the ViT and the Swin stages share: the MLP, and trading time for memory in training."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them: `(..., C)` to `(..., C)`."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Expand the tokens, apply GELU, contract them."""
        contracted: Tensor = self.contract(functional.gelu(self.expand(x)))
        return contracted


def run(module: nn.Module, x: Tensor, save_memory: bool) -> Tensor:
    """`module(x)`; to save memory, what its backward pass needs is computed again there."""
    if save_memory and torch.is_grad_enabled():
        again: Tensor = checkpoint(module, x, use_reentrant=False)
        return again
    result: Tensor = module(x)
    return result
