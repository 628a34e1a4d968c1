"""What mPLUG-Owl2's parts share: attention, and blocks run in the precision of their input."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

KERNELS = ("sdpa", "eager")  # torch's fused kernels; or plain products, softmax in float32


def attend(
    kernel: str, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Attend by heads `(B, heads, L, d)`, joined to `(B, L, heads·d)`; `mask` is added."""
    if kernel == "sdpa":
        heads = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    else:
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        weights = (scores if mask is None else scores + mask).softmax(-1, dtype=torch.float32)
        heads = weights.to(value.dtype) @ value
    return heads.transpose(1, 2).flatten(2)


def split_heads(tensor: Tensor, heads: int) -> Tensor:
    """Split `(B, L, heads·d)` into `(B, heads, L, d)`."""
    batch, length, _ = tensor.shape
    return tensor.view(batch, length, heads, -1).transpose(1, 2)


class Layers(nn.Module):
    """A level that the checkpoint's parameter names have: layers, one after the other."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, hidden: Tensor, *others: Any) -> Tensor:
        """Run `(B, L, D)` through all layers, each given `others` too: `(B, L, D)`."""
        for layer in self.layers:
            hidden = run(layer, hidden, *others)
        return hidden


def run(block: nn.Module, inputs: Tensor, *others: Any) -> Any:
    """Run a block in the precision of its input, whatever precision its weights are stored in.

    Where the two differ, the weights are cast for this one call. So float16 weights can serve a
    float32 pass, and of the float32 weights only one block's stand in memory at a time.
    """
    if next(block.parameters()).dtype == inputs.dtype:
        return block(inputs, *others)
    cast = {name: weight.to(inputs.dtype) for name, weight in block.named_parameters()}
    return functional_call(block, cast, (inputs, *others))
