"""What the paper's network costs as the reference computes it, for benchmarks/regressor.py.

The same scores as `agiqa.stage2.paper.network` under the authors' names, by the plain way: all
twelve ViT blocks and the head, attention by products and softmax, windows and layouts copied about,
and the layers that never run registered all the same.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from agiqa.stage2.paper.network import PaperConfig

VIT_BLOCKS, CLASSES = 12, 1000


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attention with all of its weights in memory."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    return torch.softmax(scores, dim=-1) @ v


class Attention(nn.Module):
    """Several heads; a Swin window's with relative positions."""

    def __init__(self, width: int, heads: int, window: int = 0) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        if window:
            table = torch.zeros((2 * window - 1) ** 2, heads)
            self.relative_position_bias_table = nn.Parameter(table)
            place = torch.cartesian_prod(torch.arange(window), torch.arange(window))
            apart = place[:, None] - place[None] + window - 1
            index = apart[..., 0] * (2 * window - 1) + apart[..., 1]
            self.register_buffer("relative_position_index", index)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(B, L, C)` to `(B, L, C)`."""
        count, length, width = x.shape
        qkv = self.qkv(x).reshape(count, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        bias = None
        if self.window:
            bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
            bias = bias.view(length, length, -1).permute(2, 0, 1).contiguous()
            if mask is not None:
                bias = (bias + mask[:, None]).repeat(count // len(mask), 1, 1, 1)
        return self.proj(attend(q, k, v, bias).transpose(1, 2).reshape(count, length, width))


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, C)` to `(B, L, C)`."""
        return self.fc2(functional.gelu(self.fc1(x)))


class VitBlock(nn.Module):
    """A transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attn = Attention(width, heads)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, C)` to `(B, L, C)`."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    """The whole classifier."""

    def __init__(self, config: PaperConfig) -> None:
        super().__init__()
        width = config.width
        self.patch_embed = nn.ModuleDict(
            {"proj": nn.Conv2d(3, width, config.patch_size, config.patch_size)}
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.patches + 1, width))
        self.blocks = nn.ModuleList(VitBlock(width, config.heads) for _ in range(VIT_BLOCKS))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits that nobody uses, and what every block gave."""
        x = self.patch_embed["proj"](image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return self.head(self.norm(x)[:, 0]), outputs


class Tab(nn.Module):
    """Transposed attention."""

    def __init__(self, positions: int, dropout: float) -> None:
        super().__init__()
        self.c_q, self.c_k, self.c_v = (nn.Linear(positions, positions) for _ in range(3))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, N)` to `(B, C, N)`."""
        mixed = attend(self.c_q(x), self.c_k(x), self.c_v(x))
        return x + self.drop(mixed.transpose(1, 2).reshape(x.shape))


class SwinBlock(nn.Module):
    """A Swin block with its windows cut out and put back."""

    def __init__(self, config: PaperConfig, width: int, shift: int, drop_path: float) -> None:
        super().__init__()
        self.grid, self.window, self.shift = config.grid, config.window, shift
        self.drop_path = drop_path
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, config.swin_heads, config.window)
        self.mlp = Mlp(width, config.swin_mlp)
        region = torch.zeros(1, self.grid, self.grid, 1)
        edges = (0, self.grid - self.window, self.grid - shift, self.grid)
        for row in range(3 if shift else 0):
            for column in range(3):
                rows = slice(edges[row], edges[row + 1])
                region[:, rows, edges[column] : edges[column + 1]] = 3 * row + column
        inside = self.cut(region).squeeze(-1)
        mask = (inside[:, None] != inside[:, :, None]) * -100.0
        self.register_buffer("attn_mask", mask if shift else None)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, N, C)` to `(B, N, C)`."""
        image = self.norm1(x).view(len(x), self.grid, self.grid, -1)
        image = image.roll((-self.shift, -self.shift), (1, 2)) if self.shift else image
        image = self.join(self.attn(self.cut(image), self.attn_mask), len(x))
        image = image.roll((self.shift, self.shift), (1, 2)) if self.shift else image
        x = x + self.skip(image.view(x.shape))
        return x + self.skip(self.mlp(self.norm2(x)))

    def cut(self, image: Tensor) -> Tensor:
        """`(B, h, w, C)` to windows `(B · windows, T, C)`."""
        count, side = self.grid // self.window, self.window
        image = image.view(len(image), count, side, count, side, -1)
        return image.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, side**2, image.shape[-1])

    def join(self, windows: Tensor, images: int) -> Tensor:
        """The way back."""
        count, side = self.grid // self.window, self.window
        windows = windows.view(images, count, count, side, side, -1)
        return windows.permute(0, 1, 3, 2, 4, 5).contiguous().view(images, self.grid, self.grid, -1)

    def skip(self, x: Tensor) -> Tensor:
        """Stochastic depth."""
        if not self.training or self.drop_path == 0:
            return x
        keep = 1 - self.drop_path
        return x * x.new_empty(len(x), 1, 1).bernoulli_(keep) / keep


class SwinLayer(nn.Module):
    """Two blocks and a convolution."""

    def __init__(self, config: PaperConfig, width: int, rates: list[float]) -> None:
        super().__init__()
        self.grid = config.grid
        shifts = (0, config.window // 2)
        self.blocks = nn.ModuleList(
            SwinBlock(config, width, shift, rate) for shift, rate in zip(shifts, rates, strict=True)
        )
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, N, C)` to `(B, N, C)`."""
        for block in self.blocks:
            x = block(x)
        image = x.transpose(1, 2).reshape(len(x), -1, self.grid, self.grid)
        return self.conv(image).relu().flatten(2).transpose(1, 2)


class Swin(nn.Module):
    """A stage."""

    def __init__(self, config: PaperConfig, width: int) -> None:
        super().__init__()
        rates = torch.linspace(0, config.drop_path, 4).tolist()
        self.scale = config.swin_scale
        self.drop = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            SwinLayer(config, width, rates[start : start + 2]) for start in (0, 2)
        )
        self.downsample = nn.Conv2d(width, width, 3, stride=2, padding=1)  # never runs

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, h, w)` to `(B, C, h, w)`."""
        tokens = self.drop(x).flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens = tokens + self.scale * layer(tokens)
        return tokens.transpose(1, 2).reshape(x.shape)


class ReferenceRegressor(nn.Module):
    """The whole, under the authors' names."""

    def __init__(self, config: PaperConfig) -> None:
        super().__init__()
        width, n, half, rate = config.width, config.patches, config.width // 2, config.dropout
        self.config = config
        self.vit = Vit(config)
        self.tablock1 = nn.Sequential(Tab(n, rate), Tab(n, rate))
        self.conv1 = nn.Conv2d(len(config.layers_run) * width, width, 1)
        self.swintransformer1 = Swin(config, width)
        self.tablock2 = nn.Sequential(Tab(n, rate), Tab(n, rate))
        self.conv2 = nn.Conv2d(width, half, 1)
        self.swintransformer2 = Swin(config, half)
        self.fc_score = self.perceptron(half, nn.ReLU())
        self.fc_weight = self.perceptron(half, nn.Sigmoid())
        self.fc784_784 = nn.Linear(n, n)
        self.fc4096_784_a2 = self.expert()
        self.fc4096_784_b2 = self.expert()
        self.gating = nn.Linear(3 * n, 3)
        self.output_fc = nn.Linear(n, 1)
        self.never_run = nn.ModuleList(
            [
                nn.TransformerEncoderLayer(n, 8, batch_first=True),
                *(nn.Linear(config.semantic_width, n) for _ in range(2)),
                *(nn.Linear(config.semantic_width, config.semantic_width // 4) for _ in range(2)),
            ]
        )

    def perceptron(self, width: int, last: nn.Module) -> nn.Sequential:
        """Of the patches."""
        first, second = nn.Linear(width, width), nn.Linear(width, 1)
        return nn.Sequential(first, nn.ReLU(), nn.Dropout(self.config.dropout), second, last)

    def expert(self) -> nn.Sequential:
        """Of a semantic vector."""
        linear = nn.Linear(self.config.semantic_width, self.config.patches)
        return nn.Sequential(linear, nn.ReLU(), nn.Dropout(self.config.dropout))

    def forward(self, image: Tensor, semantic: Tensor) -> Tensor:
        """Image `(B, 3, H, W)` and vectors `(B, 2, D)` to scores `(B,)`."""
        grid = self.config.grid
        _, outputs = self.vit(image)
        x = torch.cat([outputs[layer][:, 1:] for layer in self.config.layers_run], dim=2)
        x = self.tablock1(x.transpose(1, 2).contiguous())
        x = self.swintransformer1(self.conv1(x.unflatten(2, (grid, grid))))
        x = self.tablock2(x.flatten(2))
        x = self.swintransformer2(self.conv2(x.unflatten(2, (grid, grid))))
        x = x.flatten(2).transpose(1, 2)
        visual = self.fc784_784((self.fc_score(x) * self.fc_weight(x)).squeeze(2))
        first = self.fc4096_784_a2(semantic[:, 0])
        second = self.fc4096_784_b2(semantic[:, 1])
        gate = self.gating(torch.cat([first, second, visual], dim=1))
        experts = torch.stack([first, second, visual], dim=1)
        return self.output_fc(torch.bmm(gate[:, None], experts).squeeze(1)).squeeze(1)
