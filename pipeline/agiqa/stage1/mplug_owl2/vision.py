"""mPLUG-Owl2's visual half: pixels to a state for each patch, and what is read of them to tokens.

After the public implementation (github.com/X-PLUG/mPLUG-Owl, Apache-2.0), whose parameter names it
keeps. The tower, a ViT-L/14, differs from transformers' CLIP in the fused query, key and value,
which are interleaved by head. In each layer of the abstractor, learned queries attend to themselves
and to all of the tower's states, and become the image's visual tokens.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.clip.modeling_clip import CLIPMLP

from agiqa.stage1.mplug_owl2.blocks import Layers, attend, run, split_heads
from agiqa.stage1.mplug_owl2.configuration import AbstractorSizes, VisionSizes


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


class CrossAttention(nn.Module):
    """Queries attend to keys that carry position embeddings; values carry none."""

    def __init__(self, sizes: AbstractorSizes, vision_tokens: int, kernel: str) -> None:
        super().__init__()
        self.heads, self.kernel = sizes.num_attention_heads, kernel
        width, seen_width = sizes.hidden_size, sizes.encoder_hidden_size
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(seen_width, width)
        self.value = nn.Linear(seen_width, width)
        self.q_pos_embed = nn.Parameter(torch.randn(sizes.num_learnable_queries, width))
        self.k_pos_embed = nn.Parameter(torch.randn(vision_tokens, width))

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """Let queries `(B, Q, D)` attend to all they may see `(B, Q + T, D)`: `(B, Q, D)`."""
        positions = torch.cat([self.q_pos_embed, self.k_pos_embed])
        query = split_heads(self.query(queries + self.q_pos_embed), self.heads)
        key = split_heads(self.key(context + positions), self.heads)
        return attend(self.kernel, query, key, split_heads(self.value(context), self.heads))


class GatedMLP(nn.Module):
    """SwiGLU with a norm in its middle."""

    def __init__(self, sizes: AbstractorSizes) -> None:
        super().__init__()
        self.w1 = nn.Linear(sizes.hidden_size, sizes.intermediate_size)
        self.w2 = nn.Linear(sizes.intermediate_size, sizes.hidden_size)
        self.w3 = nn.Linear(sizes.hidden_size, sizes.intermediate_size)
        self.ffn_ln = nn.LayerNorm(sizes.intermediate_size, eps=sizes.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `(B, Q, D)` to `(B, Q, D)`."""
        mixed: Tensor = self.w2(self.ffn_ln(functional.silu(self.w1(hidden)) * self.w3(hidden)))
        return mixed


class CrossOutput(nn.Module):
    """Projection and MLP after the attention, each with a residual."""

    def __init__(self, sizes: AbstractorSizes) -> None:
        super().__init__()
        self.out_proj = nn.Linear(sizes.hidden_size, sizes.hidden_size)
        self.norm2 = nn.LayerNorm(sizes.hidden_size)
        self.mlp = GatedMLP(sizes)

    def forward(self, attended: Tensor, queries: Tensor) -> Tensor:
        """Add projection and MLP to the queries; all `(B, Q, D)`."""
        hidden = queries + self.out_proj(attended)
        mixed: Tensor = hidden + self.mlp(self.norm2(hidden))
        return mixed


class CrossAttentionBlock(nn.Module):
    """The residual runs through the normed queries, as in the published weights."""

    def __init__(self, sizes: AbstractorSizes, vision_tokens: int, kernel: str) -> None:
        super().__init__()
        self.attention = CrossAttention(sizes, vision_tokens, kernel)
        self.output = CrossOutput(sizes)
        self.norm1 = nn.LayerNorm(sizes.hidden_size)
        self.normk = nn.LayerNorm(sizes.encoder_hidden_size)

    def forward(self, queries: Tensor, states: Tensor) -> Tensor:
        """Map queries `(B, Q, D)` and the tower's states `(B, T, D)` to `(B, Q, D)`."""
        queries = self.norm1(queries)
        context = torch.cat([queries, self.normk(states)], dim=1)
        mixed: Tensor = self.output(self.attention(queries, context), queries)
        return mixed


class AbstractorLayer(nn.Module):
    """A level that the checkpoint's parameter names have."""

    def __init__(self, sizes: AbstractorSizes, vision_tokens: int, kernel: str) -> None:
        super().__init__()
        self.crossattention = CrossAttentionBlock(sizes, vision_tokens, kernel)

    def forward(self, queries: Tensor, states: Tensor) -> Tensor:
        """Run the block within, shapes as it has them."""
        mixed: Tensor = self.crossattention(queries, states)
        return mixed


class VisualAbstractor(nn.Module):
    """The tower's states `(B, T, D)` to visual tokens `(B, Q + 1, H)`, end-of-image last."""

    def __init__(
        self, sizes: AbstractorSizes, vision_tokens: int, language_width: int, kernel: str
    ) -> None:
        super().__init__()
        self.encoder = Layers(
            AbstractorLayer(sizes, vision_tokens, kernel) for _ in range(sizes.num_hidden_layers)
        )
        self.visual_fc = nn.Linear(sizes.hidden_size, language_width)
        self.query_embeds = nn.Parameter(
            torch.randn(1, sizes.num_learnable_queries, sizes.hidden_size)
        )
        self.vit_eos = nn.Parameter(torch.randn(1, 1, language_width))

    def forward(self, states: Tensor) -> Tensor:
        """Read the states into visual tokens of the language model's width."""
        batch = len(states)
        tokens = self.visual_fc(self.encoder(self.query_embeds.expand(batch, -1, -1), states))
        return torch.cat([tokens, self.vit_eos.expand(batch, -1, -1)], dim=1)
