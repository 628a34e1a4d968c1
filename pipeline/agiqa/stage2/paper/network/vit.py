"""The backbone: a vision transformer cut behind the last block that is read.

ViT-B/8 (arXiv:2010.11929) as timm's `vit_base_patch8_224` has it: a class token, learned positions,
pre-norm blocks with LayerNorm eps 1e-6. The blocks behind, the last norm and the head have no part
in the paper's score, so they do not exist here. The Swin stages share the MLP, and trading time for
memory in training (`run`).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from agiqa.stage2.paper.network.config import PaperConfig

Activation = Callable[[Tensor], Tensor]

EPS = 1e-6
DEVIATION = 0.02  # of random weights, as timm starts them
MLP_RATIO = 4


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


class SelfAttention(nn.Module):
    """Multi-head attention between tokens: `(B, L, C)` to `(B, L, C)`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend from every token to every token."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        attended: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return attended


class Block(nn.Module):
    """A pre-norm transformer block: `(B, L, C)` to `(B, L, C)`."""

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int = 0,
        eps: float = EPS,
        bend: Activation = functional.gelu,
    ) -> None:
        """Make the block; `hidden` is the MLP's width, by default four times the tokens'."""
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, hidden or MLP_RATIO * width, bend)

    def forward(self, x: Tensor) -> Tensor:
        """Attention, then the MLP, each beside its input."""
        x = x + self.attention(self.norm1(x))
        changed: Tensor = x + self.mlp(self.norm2(x))
        return changed


class Backbone(nn.Module):
    """Patches, positions and `config.depth` blocks."""

    def __init__(self, config: PaperConfig) -> None:
        super().__init__()
        self.layers_run = config.layers_run
        self.patches = nn.Conv2d(3, config.width, config.patch_size, config.patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.position = nn.Parameter(torch.zeros(1, 1 + config.patches, config.width))
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self._start()

    def forward(self, image: Tensor, save_memory: bool = False) -> list[Tensor]:
        """Image `(B, 3, H, W)` to the outputs `(B, 1 + N, C)` of the blocks that are read.

        The class token comes first; `save_memory` as in `run`.
        """
        patches = self.patches(image).flatten(2).transpose(1, 2)
        token = self.class_token.expand(len(patches), -1, -1)
        x = torch.cat([token.to(patches.dtype), patches], dim=1) + self.position
        outputs = []
        for block in self.blocks:
            x = run(block, x, save_memory)
            outputs.append(x)
        return [outputs[layer] for layer in self.layers_run]

    def _start(self) -> None:
        """Random weights to train from nothing with."""
        nn.init.trunc_normal_(self.position, std=DEVIATION)
        nn.init.normal_(self.class_token, std=1e-6)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=DEVIATION)
                nn.init.zeros_(module.bias)


def run(module: nn.Module, x: Tensor, save_memory: bool) -> Tensor:
    """`module(x)`; to save memory, what its backward pass needs is computed again there."""
    if save_memory and torch.is_grad_enabled():
        again: Tensor = checkpoint(module, x, use_reentrant=False)
        return again
    result: Tensor = module(x)
    return result
