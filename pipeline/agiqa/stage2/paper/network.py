"""The paper's network (MA-AGIQA, arXiv:2404.17762), after github.com/wangpuyi/MA-AGIQA.

Image and semantic vectors to a score, from top to bottom: MANIQA's image branch (arXiv:2204.08958),
which is a vision transformer (`Backbone`), attention across channels (`TransposedAttention`) and
scaled Swin stages (`ScaledSwin`), ends in a weighted score for each patch; these and the two
semantic vectors are the three experts that a linear gate, without softmax, mixes for each image
(`PaperRegressor`). Equal to the reference within 1e-4 of every stage's spread, with its weights
(`weights`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Network

SEMANTIC = ("semantic_content", "coherence")  # order of the semantic vectors
EXPERTS = (*SEMANTIC, "visual")  # order of the gate's weights

EPS = 1e-6  # of the backbone's LayerNorms
DEVIATION = 0.02  # of random weights, as timm starts them
MLP_RATIO = 4
ROWS = 1536  # channels that attend at a time
CHANNEL_BLOCKS = 2  # transposed attention blocks before each Swin stage
SWIN_LAYERS = 2  # in each Swin stage
SWIN_BLOCKS = 2  # in each layer, the second one shifted
APART = -100.0  # added to the attention between patches that are no neighbours

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PaperConfig(Network):
    """Every size and rate of `PaperRegressor`: the settings', and what the vectors say.

    The defaults are the paper's own; small ones make a tiny network for tests.

    Raises:
        AgiqaError: sizes that do not divide each other; one line says which.
    """

    semantic_width: int = 4096  # D of the semantic vectors

    def __post_init__(self) -> None:
        divisions = {
            "image size by patch size": (self.image_size, self.patch_size),
            "patches a side by Swin window": (self.grid, self.window),
            "width by heads": (self.width, self.heads),
            "half the width by Swin heads": (self.width // 2, self.swin_heads),
            "width by 2": (self.width, 2),
        }
        for what, (size, part) in divisions.items():
            if size % part or size < part:
                raise AgiqaError(
                    f"The paper's network divides {what}, found {size} by {part}: change "
                    "paper.network so that nothing is left over."
                )

    @property
    def grid(self) -> int:
        """Patches a side, h and w."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        """N: patches of an image, which is also the width of every expert."""
        return self.grid**2

    @property
    def depth(self) -> int:
        """ViT blocks there are: none behind the last that is read."""
        return max(self.layers_run) + 1


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
    """A vision transformer cut behind the last block that is read: patches, positions, blocks.

    ViT-B/8 (arXiv:2010.11929) as timm's `vit_base_patch8_224` has it: a class token, learned
    positions, pre-norm blocks. The blocks behind, the last norm and the head have no part in the
    paper's score, so they do not exist here.
    """

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


class TransposedAttention(nn.Module):
    """Attention across channels: `(B, C, N)` to `(B, C, N)`.

    Each of the C channels is a token whose content is its N positions. Two things differ from an
    ordinary attention and decide how it is computed here:

    * The result `(C, N)` is read out transposed, its numbers then laid down as `(C, N)` again. The
      reference does so, probably by accident, and its weights are trained with it.
    * A head is N = 784 wide, C = 3072 tokens long, and flash attention stops at widths of 256.
      Plain products run on every device's fast units; over `ROWS` channels at a time they hold
      `(ROWS, C)` of the attention instead of `(C, C)` where no gradient is asked for. On a CPU they
      take as long as torch's fused function forwards, and a tenth less in a training step.
    """

    def __init__(self, positions: int, dropout: float) -> None:
        super().__init__()
        self.query = nn.Linear(positions, positions)
        self.key = nn.Linear(positions, positions)
        self.value = nn.Linear(positions, positions)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Attend, read out transposed, drop out, beside the input."""
        queries = self.query(x) * x.shape[-1] ** -0.5
        keys, values = self.key(x).transpose(1, 2), self.value(x)
        parts = queries.split(ROWS, dim=1)
        mixed = torch.cat([(part @ keys).softmax(dim=-1) @ values for part in parts], dim=1)
        changed: Tensor = x + self.dropout(mixed.transpose(1, 2).reshape(x.shape))
        return changed


class WindowAttention(nn.Module):
    """Attention within windows: `(B, h, w, C)` to `(B, h, w, C)`.

    Windows and heads are folded into one dimension, for which the attention's bias is laid out once
    a call: relative positions, and −100 between patches that the cyclic shift brought together.

    Args:
        width: C.
        heads: attention heads.
        window: patches a side of a window.
        grid: patches a side of the image.
        shift: patches by which the windows are moved, cyclically.
    """

    relative: Tensor
    apart: Tensor

    def __init__(self, width: int, heads: int, window: int, grid: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.position_bias = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.position_bias, std=0.02)
        self.register_buffer("relative", relative_positions(window), persistent=False)
        self.register_buffer("apart", shifted_mask(grid, window, shift), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shift, attend within each window, shift back."""
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        q, k, v = self._windows(self.qkv(x))
        bias = self._bias().to(q.dtype)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        attended: Tensor = self.output(self._image(mixed, x.shape))
        if self.shift:
            attended = attended.roll((self.shift, self.shift), dims=(1, 2))
        return attended

    def _windows(self, qkv: Tensor) -> tuple[Tensor, ...]:
        """`(B, h, w, 3 C)` to queries, keys and values `(B, windows * heads, T, C / heads)`."""
        side = self.window
        cut = qkv.unflatten(2, (-1, side)).unflatten(1, (-1, side))
        cut = cut.unflatten(-1, (3, self.heads, -1))  # (B, rows, side, columns, side, 3, heads, d)
        folded: Tensor = cut.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6).flatten(2, 4)
        return folded.unbind(0)

    def _image(self, mixed: Tensor, shape: torch.Size) -> Tensor:
        """`(B, windows * heads, T, C / heads)` to `shape`, `(B, h, w, C)`."""
        side, rows = self.window, shape[1] // self.window
        cut = mixed.unflatten(2, (side, side)).unflatten(1, (rows, -1, self.heads))
        laid_out: Tensor = cut.permute(0, 1, 4, 2, 5, 3, 6).reshape(shape)
        return laid_out

    def _bias(self) -> Tensor:
        """What is added to the attention: `(1, windows * heads, T, T)`."""
        relative = self.position_bias[self.relative].permute(2, 0, 1)
        return (relative + self.apart[:, None]).flatten(0, 1)[None]


class SwinBlock(nn.Module):
    """A pre-norm block: `(B, h, w, C)` to `(B, h, w, C)`."""

    def __init__(self, config: PaperConfig, width: int, shifted: bool, drop_path: float) -> None:
        super().__init__()
        whole = config.grid == config.window  # one window: nothing to shift
        shift = config.window // 2 if shifted and not whole else 0
        self.norm1 = nn.LayerNorm(width)
        self.attention = WindowAttention(
            width, config.swin_heads, config.window, config.grid, shift
        )
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, config.swin_mlp)
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Attention, then the MLP, each beside its input and left out now and then in training."""
        x = x + self.drop_path(self.attention(self.norm1(x)))
        changed: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return changed


class SwinLayer(nn.Module):
    """Two blocks, a 3×3 convolution and ReLU: `(B, h, w, C)` to `(B, h, w, C)`."""

    def __init__(self, config: PaperConfig, width: int, drop_path: list[float]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                SwinBlock(config, width, index % 2 == 1, rate)
                for index, rate in enumerate(drop_path)
            )
        )
        self.convolution = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Run the blocks, then the convolution."""
        channels_last = self.blocks(x).permute(0, 3, 1, 2)
        convolved: Tensor = self.convolution(channels_last).relu().permute(0, 2, 3, 1)
        return convolved


class ScaledSwin(nn.Module):
    """The scaled Swin stage: dropout, then x + scale · layer(x) for each layer.

    MANIQA's, from Swin Transformer's (arXiv:2103.14030). Activations are `(B, h, w, C)` throughout,
    so a convolution sees channels-last memory and nothing is copied for it. LayerNorm eps is 1e-5.
    """

    def __init__(self, config: PaperConfig, width: int) -> None:
        super().__init__()
        blocks = SWIN_LAYERS * SWIN_BLOCKS
        rates = torch.linspace(0, config.drop_path, blocks, device="cpu").tolist()
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            SwinLayer(config, width, rates[start : start + SWIN_BLOCKS])
            for start in range(0, len(rates), SWIN_BLOCKS)
        )
        self.scale = config.swin_scale

    def forward(self, x: Tensor, save_memory: bool = False) -> Tensor:
        """`(B, h, w, C)` to `(B, h, w, C)`; `save_memory` as in `run`."""
        x = self.dropout(x)
        for layer in self.layers:
            x = x + self.scale * run(layer, x, save_memory)
        return x


class StochasticDepth(nn.Module):
    """In training, zero for a share `rate` of the images, the others scaled up for it."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """`(B, ...)` to `(B, ...)`."""
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        kept = x.new_empty(len(x), *(1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * (kept / keep)


def relative_positions(window: int) -> Tensor:
    """Row of the bias table `((2 window − 1)²)` for each pair of a window's patches `(T, T)`."""
    position = torch.arange(window)
    apart = position[:, None] - position[None, :] + window - 1  # (window, window)
    rows, columns = apart[:, None, :, None], apart[None, :, None, :]
    return (rows * (2 * window - 1) + columns).reshape(window**2, window**2)


def shifted_mask(grid: int, window: int, shift: int) -> Tensor:
    """0 or `APART` `(windows, T, T)`: a shifted window holds up to four regions, kept apart."""
    position = torch.arange(grid)
    region = (position >= grid - window).int() + (position >= grid - shift).int()
    regions = region[:, None] * 3 + region[None, :]
    cut = regions.unflatten(1, (-1, window)).unflatten(0, (-1, window)).transpose(1, 2)
    windows: Tensor = cut.reshape(-1, window**2)
    return (windows[:, :, None] != windows[:, None, :]) * APART


class NetworkOutput(NamedTuple):
    """What the network says of B images, on the raw scale of the MOS."""

    score: Tensor  # (B,)
    gate: Tensor  # (B, 3) in the order of EXPERTS
    quality_map: Tensor  # (B, h, w): each patch's weight times its score


class PaperRegressor(nn.Module):
    """Scores on the raw scale of the MOS that it was trained on.

    `gradient_checkpointing` lets a training step compute the blocks a second time instead of
    keeping what is in them.
    """

    def __init__(self, config: PaperConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        width, half, patches = config.width, config.width // 2, config.patches
        self.backbone = Backbone(config)
        self.channels1 = _channel_blocks(config)
        self.reduce1 = nn.Conv2d(len(config.layers_run) * width, width, 1)
        self.swin1 = ScaledSwin(config, width)
        self.channels2 = _channel_blocks(config)
        self.reduce2 = nn.Conv2d(width, half, 1)
        self.swin2 = ScaledSwin(config, half)
        self.patch_score = _perceptron(half, config.dropout, nn.ReLU())  # none below 0
        self.patch_weight = _perceptron(half, config.dropout, nn.Sigmoid())  # between 0 and 1
        self.visual_expert = nn.Linear(patches, patches)
        self.semantic_experts = nn.ModuleDict(  # a vector (B, D) to (B, N)
            {
                name: nn.Sequential(
                    nn.Linear(config.semantic_width, patches), nn.ReLU(), nn.Dropout(config.dropout)
                )
                for name in SEMANTIC
            }
        )
        self.gate = nn.Linear(len(EXPERTS) * patches, len(EXPERTS))
        self.head = nn.Linear(patches, 1)

    def forward(self, image: Tensor, semantic: Tensor) -> NetworkOutput:
        """Score a batch.

        Args:
            image: `(B, 3, H, W)` in [−1, 1], H and W the config's image size.
            semantic: `(B, 2, D)` in the order of `SEMANTIC`.
        """
        features = self.features(image)
        # Under autocast as well: bfloat16 would round an MOS of 3.14 to 3.141 or 3.125.
        with torch.autocast(features.device.type, enabled=False):
            dtype = self.head.weight.dtype
            return self.mix(features.to(dtype), semantic.to(dtype))

    def features(self, image: Tensor) -> Tensor:
        """Image `(B, 3, H, W)` to patch features `(B, N, C / 2)`."""
        saving = self.gradient_checkpointing and self.training
        outputs = self.backbone(image, saving)
        x = torch.cat([states[:, 1:].transpose(1, 2) for states in outputs], dim=1)  # (B, 4 C, N)
        x = self._reduce(self.channels1, self.reduce1, x, saving)
        x = self.swin1(x, saving)
        x = x.flatten(1, 2).transpose(1, 2).contiguous()
        x = self._reduce(self.channels2, self.reduce2, x, saving)
        features: Tensor = self.swin2(x, saving).flatten(1, 2)
        return features

    def mix(self, features: Tensor, semantic: Tensor) -> NetworkOutput:
        """Patch features `(B, N, C / 2)` and vectors `(B, 2, D)` to the prediction."""
        quality = (self.patch_score(features) * self.patch_weight(features)).squeeze(-1)
        pairs = zip(self.semantic_experts.values(), semantic.unbind(1), strict=True)
        states = [expert(vector) for expert, vector in pairs]
        experts = torch.stack([*states, self.visual_expert(quality)], dim=1)  # (B, 3, N)
        gate = self.gate(experts.flatten(1))
        mixed = (gate.unsqueeze(-1) * experts).sum(dim=1)
        score = self.head(mixed).squeeze(-1)
        return NetworkOutput(score, gate, quality.unflatten(1, (self.config.grid, -1)))

    def _reduce(
        self, blocks: nn.Sequential, convolution: nn.Conv2d, x: Tensor, saving: bool
    ) -> Tensor:
        """`(B, C, N)` through attention across channels to fewer channels, `(B, h, w, C')`."""
        for block in blocks:
            x = run(block, x, saving)
        reduced: Tensor = convolution(x.unflatten(2, (self.config.grid, -1)))
        return reduced.permute(0, 2, 3, 1).contiguous()


def _channel_blocks(config: PaperConfig) -> nn.Sequential:
    return nn.Sequential(
        *(TransposedAttention(config.patches, config.dropout) for _ in range(CHANNEL_BLOCKS))
    )


def _perceptron(width: int, dropout: float, last: nn.Module) -> nn.Sequential:
    """Features `(B, N, C)` to a number for each patch `(B, N, 1)`."""
    return nn.Sequential(
        nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 1), last
    )
