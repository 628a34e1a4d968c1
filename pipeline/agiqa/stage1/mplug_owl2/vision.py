"""mPLUG-Owl2's vision tower, a ViT-L/14: pixels to one state for each patch, and a class token.

After the public implementation (github.com/X-PLUG/mPLUG-Owl, Apache-2.0), whose parameter names it
keeps. It differs from transformers' CLIP in the fused query, key and value, which are interleaved
by head.
"""

import torch
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPMLP

from agiqa.stage1.mplug_owl2.blocks import Layers, attend, run
from agiqa.stage1.mplug_owl2.configuration import VisionSizes


class VisionEmbeddings(nn.Module):
    """Patches and class token with their positions: `(B, 3, S, S)` to `(B, T, D)`."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        width, patch = sizes.hidden_size, sizes.patch_size
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.position_embedding = nn.Parameter(torch.randn(1, sizes.tokens, width))
        self.patch_embed = nn.Conv2d(3, width, kernel_size=patch, stride=patch, bias=False)
        self.pre_layernorm = nn.LayerNorm(width, eps=sizes.layer_norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed normalised pixels, as above."""
        patches = self.patch_embed(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(pixels), -1, -1), patches], dim=1)
        embedded: Tensor = self.pre_layernorm(tokens + self.position_embedding)
        return embedded


class VisionAttention(nn.Module):
    """Self-attention over all patches of an image."""

    def __init__(self, sizes: VisionSizes, kernel: str) -> None:
        super().__init__()
        self.heads, self.kernel = sizes.num_attention_heads, kernel
        self.query_key_value = nn.Linear(sizes.hidden_size, 3 * sizes.hidden_size)
        self.dense = nn.Linear(sizes.hidden_size, sizes.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Attend within `(B, T, D)`: `(B, T, D)`."""
        fused = self.query_key_value(hidden).unflatten(-1, (self.heads, 3, -1))
        query, key, value = fused.permute(3, 0, 2, 1, 4)
        mixed: Tensor = self.dense(attend(self.kernel, query, key, value))
        return mixed


class VisionLayer(nn.Module):
    """One pre-norm transformer block of the tower."""

    def __init__(self, sizes: VisionSizes, kernel: str) -> None:
        super().__init__()
        self.self_attn = VisionAttention(sizes, kernel)
        self.input_layernorm = nn.LayerNorm(sizes.hidden_size, eps=sizes.layer_norm_eps)
        self.mlp = CLIPMLP(sizes)
        self.post_attention_layernorm = nn.LayerNorm(sizes.hidden_size, eps=sizes.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """Run the block on `(B, T, D)`: `(B, T, D)`."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden))
        mixed: Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return mixed


class VisionModel(nn.Module):
    """The whole tower: normalised pixels `(B, 3, S, S)` to states `(B, T, D)`."""

    def __init__(self, sizes: VisionSizes, kernel: str) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(sizes)
        self.encoder = Layers(VisionLayer(sizes, kernel) for _ in range(sizes.num_hidden_layers))
        self.post_layernorm = nn.LayerNorm(sizes.hidden_size, eps=sizes.layer_norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """Run pixels to states after the final norm, class token first."""
        states: Tensor = run(self.post_layernorm, self.encoder(run(self.embeddings, pixels)))
        return states
