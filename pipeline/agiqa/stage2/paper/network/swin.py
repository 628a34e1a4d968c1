"""The scaled Swin stage: MANIQA's (arXiv:2204.08958), from Swin Transformer's (arXiv:2103.14030).

Activations are `(B, h, w, C)` throughout, so a convolution sees channels-last memory and nothing is
copied for it. Windows and heads are folded into one dimension, for which the attention's bias is
laid out once a call: relative positions, and −100 between patches that the cyclic shift brought
together. LayerNorm eps is 1e-5.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from agiqa.stage2.paper.network.config import SWIN_BLOCKS, SWIN_LAYERS, PaperConfig
from agiqa.stage2.paper.network.vit import Mlp, run

APART = -100.0  # added to the attention between patches that are no neighbours


class WindowAttention(nn.Module):
    """Attention within windows: `(B, h, w, C)` to `(B, h, w, C)`.

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
    """The stage: dropout, then x + scale · layer(x) for each layer."""

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
        """`(B, h, w, C)` to `(B, h, w, C)`; `save_memory` as in `vit.run`."""
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
