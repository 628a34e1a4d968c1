"""mPLUG-Owl2: images and text to the last hidden state, and with its head to answers.

A network of our own on transformers' LLaMA parts; parameter names are those of the public
checkpoint (`MAGAer13/mplug-owl2-llama2-7b`) after its leading `model.`. After Ye et al. (CVPR 2024,
arXiv:2311.04257), the public configuration file and the public implementation
(github.com/X-PLUG/mPLUG-Owl, Apache-2.0).

The tower, a ViT-L/14, differs from transformers' CLIP in the fused query, key and value, which are
interleaved by head. In each layer of the abstractor, learned queries attend to themselves and to
all of the tower's states, and become the image's visual tokens. In LLaMA's blocks visual and text
tokens have their own norms, keys and values, and share all else. An image's tokens stand side by
side and at the same place in every row of a batch, so the sequence is cut into text, image, text,
and each piece meets its own weights once: no loop over tokens, no product with weights that are
then thrown away.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from transformers import LlamaConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.clip.modeling_clip import CLIPMLP
from transformers.models.llama.modeling_llama import (
    LlamaMLP,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
    repeat_kv,
)

Sizes = TypeVar("Sizes", bound="VisionSizes | AbstractorSizes")


@dataclass(frozen=True)
class VisionSizes:
    """The vision tower, by default ViT-L/14 at 448 pixels; `visual_config.visual_model`."""

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 448  # pixels a side
    patch_size: int = 14
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-6

    @property
    def tokens(self) -> int:
        """Of an image: its patches and a class token."""
        return (self.image_size // self.patch_size) ** 2 + 1


@dataclass(frozen=True)
class AbstractorSizes:
    """Sizes of the visual abstractor; `visual_config.visual_abstractor`."""

    num_learnable_queries: int = 64
    hidden_size: int = 1024
    intermediate_size: int = 2816
    num_hidden_layers: int = 6
    num_attention_heads: int = 16
    encoder_hidden_size: int = 1024  # of the vision tower
    layer_norm_eps: float = 1e-6  # of the norm inside the MLP; the other norms have torch's 1e-5


class MplugOwl2Config(LlamaConfig):
    """LLaMA's configuration with the vision tower's and the abstractor's sizes."""

    model_type = "mplug_owl2"

    visual_config: dict[str, Any] | None = None

    @property
    def vision(self) -> VisionSizes:
        """Sizes of the vision tower; what the file leaves out has the public model's value."""
        return _sizes(VisionSizes, self.visual_config, "visual_model")

    @property
    def abstractor(self) -> AbstractorSizes:
        """Sizes of the visual abstractor, likewise."""
        return _sizes(AbstractorSizes, self.visual_config, "visual_abstractor")

    @property
    def visual_tokens(self) -> int:
        """That an image becomes: the abstractor's queries and one end-of-image embedding."""
        return self.abstractor.num_learnable_queries + 1


def _sizes(cls: type[Sizes], tree: Mapping[str, Any] | None, part: str) -> Sizes:
    given = (tree or {}).get(part) or {}
    chosen: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        value = given.get(field.name, field.default)
        if type(value) is not type(field.default):
            raise ValueError(f"visual_config.{part}.{field.name} is {value!r}")
        chosen[field.name] = value
    return cls(**chosen)


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


IMAGE_TOKEN = -200  # stands in the input ids where the image's tokens go
COMPUTED = r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
NOT_NEEDED = (r"lm_head\.weight", COMPUTED)
NO_IMAGE: Span = (0, 0)


@dataclass(frozen=True)
class Prefix:
    """Text before an image, already run: no image can change it, since attention is causal."""

    states: Tensor  # (1, P, D), after the final norm
    past: tuple[KeyValue, ...]  # each layer's keys and values, (1, heads, P, d)


class MplugOwl2Model(PreTrainedModel):
    """Vision tower, visual abstractor and modality-adaptive LLaMA.

    A block runs in the precision of its input (`run`), so float32 pixels and embeddings
    make a float32 pass whatever the weights are stored in.
    """

    config_class = MplugOwl2Config
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    _supports_sdpa = True
    _no_split_modules = ("VisionEmbeddings", "VisionLayer", "VisualAbstractor", "DecoderLayer")
    _keys_to_ignore_on_load_unexpected: tuple[str, ...] = NOT_NEEDED

    def __init__(self, config: MplugOwl2Config) -> None:
        super().__init__(config)
        kernel = self.config._attn_implementation
        self.vision_model = VisionModel(config.vision, kernel)
        self.visual_abstractor = VisualAbstractor(
            config.abstractor, config.vision.tokens, config.hidden_size, kernel
        )
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(config, kernel) for _ in range(config.num_hidden_layers)
        )
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config)
        self.post_init()

    def forward(self, input_ids: Tensor, pixel_values: Tensor) -> BaseModelOutput:
        """Run everything in one pass, the plain way.

        Args:
            input_ids: `(B, L)`; `IMAGE_TOKEN` once a row, at the same place in every row.
            pixel_values: normalised, `(B, 3, S, S)`.
        """
        columns = (input_ids == IMAGE_TOKEN).nonzero()[:, 1].unique()
        if len(columns) != 1 or int((input_ids == IMAGE_TOKEN).sum()) != len(input_ids):
            raise ValueError("expected one image a row, at the same place in every row")
        column = int(columns)
        visual = self.encode_images(pixel_values)
        sides = [
            self.embed(side, visual.dtype)
            for side in (input_ids[:, :column], input_ids[:, column + 1 :])
        ]
        embedded = torch.cat([sides[0], visual, sides[1]], dim=1)
        states = self.decode(embedded, (column, column + visual.shape[1]))
        return BaseModelOutput(last_hidden_state=states)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode normalised pixels `(B, 3, S, S)` into visual tokens `(B, V, D)`."""
        tokens: Tensor = run(self.visual_abstractor, self.vision_model(pixels))
        return tokens

    def embed(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Embed token ids `(B, L)`: `(B, L, D)`."""
        embedded: Tensor = self.embed_tokens(ids).to(dtype)
        return embedded

    def decode(self, embedded: Tensor, image: Span, prefix: Prefix | None = None) -> Tensor:
        """Run embeddings `(B, L, D)` to last hidden states `(B, L, D)` after the final norm.

        Args:
            embedded: text and visual tokens in order.
            image: where the visual tokens are in `embedded`.
            prefix: text that comes before `embedded` in every row.
        """
        past = prefix.past if prefix else (None,) * len(self.layers)
        rotary, mask = self._positions(embedded, prefix)
        hidden = embedded
        for layer, before in zip(self.layers, past, strict=True):
            hidden, _ = run(layer, hidden, image, rotary, mask, before)
        states: Tensor = run(self.norm, hidden)
        return states

    def run_prefix(self, ids: Tensor, dtype: torch.dtype) -> Prefix:
        """Run the text `(1, P)` before an image once, for all images."""
        hidden = self.embed(ids, dtype)
        rotary, mask = self._positions(hidden, None)
        past = []
        for layer in self.layers:
            hidden, kept = run(layer, hidden, NO_IMAGE, rotary, mask, None)
            past.append(kept)
        return Prefix(run(self.norm, hidden), tuple(past))

    def _positions(self, embedded: Tensor, prefix: Prefix | None) -> tuple[KeyValue, Tensor]:
        """Compute cosines and sines of the embeddings' positions, and the causal mask."""
        past = prefix.states.shape[1] if prefix else 0
        length = embedded.shape[1]
        positions = torch.arange(past, past + length, device=embedded.device)[None]
        return self.rotary_emb(embedded, positions), causal_mask(length, past, embedded)


class MplugOwl2WithHead(MplugOwl2Model):
    """The same with the head that scores the vocabulary behind a state."""

    _keys_to_ignore_on_load_unexpected = (COMPUTED,)

    def __init__(self, config: MplugOwl2Config) -> None:
        super().__init__(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def logits(self, states: Tensor) -> Tensor:
        """Score the vocabulary `(B, V)`, float32, behind states `(B, D)`."""
        scores: Tensor = run(self.lm_head, states)
        return scores.float()
