"""LLaMA's blocks with modality-adaptive weights (mPLUG-Owl2, arXiv:2311.04257).

Visual and text tokens have their own norms, keys and values, and share all else. An image's tokens
stand side by side and at the same place in every row of a batch, so the sequence is cut into text,
image, text, and each piece meets its own weights once: no loop over tokens, no product with weights
that are then thrown away.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import (
    LlamaMLP,
    LlamaRMSNorm,
    apply_rotary_pos_emb,
    repeat_kv,
)

from agiqa.stage1.mplug_owl2.blocks import attend, split_heads
from agiqa.stage1.mplug_owl2.configuration import MplugOwl2Config

Span = tuple[int, int]  # the image's tokens: first, and one past the last
KeyValue = tuple[Tensor, Tensor]  # of one layer, each (B, heads, L, d)


class Multiway(nn.Module):
    """A module for text tokens (the first) and its twin for visual tokens."""

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.multiway = nn.ModuleList([build(), build()])

    def forward(self, hidden: Tensor, image: Span) -> Tensor:
        """Map `(B, L, in)` to `(B, L, out)`, each token by its own module."""
        text, visual = self.multiway
        start, stop = image
        sides = (hidden[:, :start], hidden[:, start:stop], hidden[:, stop:])
        modules = (text, visual, text)
        done = [m(side) for m, side in zip(modules, sides, strict=True) if side.shape[1]]
        return torch.cat(done, dim=1)


class Attention(nn.Module):
    """LLaMA's attention with two sets of keys and values."""

    def __init__(self, config: MplugOwl2Config, kernel: str) -> None:
        super().__init__()
        self.heads, self.kernel = config.num_attention_heads, kernel
        self.shared_heads = config.num_key_value_heads
        linear = partial(nn.Linear, bias=config.attention_bias)
        width, narrow = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.q_proj = linear(width, width)
        self.k_proj = Multiway(partial(linear, width, narrow))
        self.v_proj = Multiway(partial(linear, width, narrow))
        self.o_proj = linear(width, width)

    def forward(
        self, hidden: Tensor, image: Span, rotary: KeyValue, mask: Tensor, past: KeyValue | None
    ) -> tuple[Tensor, KeyValue]:
        """Attend to `past` and to oneself; gives the states and this layer's keys and values."""
        query = split_heads(self.q_proj(hidden), self.heads)
        key = split_heads(self.k_proj(hidden, image), self.shared_heads)
        value = split_heads(self.v_proj(hidden, image), self.shared_heads)
        query, key = apply_rotary_pos_emb(query, key, *rotary)
        if past is not None:
            key, value = (
                torch.cat([before.expand(len(hidden), -1, -1, -1), now], dim=2)
                for before, now in zip(past, (key, value), strict=True)
            )
        times = self.heads // self.shared_heads
        repeated = (repeat_kv(key, times), repeat_kv(value, times))
        return self.o_proj(attend(self.kernel, query, *repeated, mask)), (key, value)


class DecoderLayer(nn.Module):
    """One pre-norm block of the language model."""

    def __init__(self, config: MplugOwl2Config, kernel: str) -> None:
        super().__init__()
        norm = partial(LlamaRMSNorm, config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = Attention(config, kernel)
        self.mlp = LlamaMLP(config)
        self.input_layernorm = Multiway(norm)
        self.post_attention_layernorm = Multiway(norm)

    def forward(
        self, hidden: Tensor, image: Span, rotary: KeyValue, mask: Tensor, past: KeyValue | None
    ) -> tuple[Tensor, KeyValue]:
        """Run states `(B, L, D)`, and give this layer's keys and values."""
        normed = self.input_layernorm(hidden, image)
        attended, kept = self.self_attn(normed, image, rotary, mask, past)
        hidden = hidden + attended
        return hidden + self.mlp(self.post_attention_layernorm(hidden, image)), kept


def causal_mask(length: int, past: int, like: Tensor) -> Tensor:
    """Make what is added to scores `(1, 1, length, past + length)`: 0 for what is seen, else -inf.

    The first of the `length` tokens stands at position `past`.
    """
    shape = (length, past + length)
    hidden = torch.full(shape, float("-inf"), dtype=like.dtype, device=like.device)
    return hidden.triu(diagonal=past + 1)[None, None]
