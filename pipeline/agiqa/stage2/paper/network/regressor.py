"""The paper's network: image and semantic vectors to a score.

MA-AGIQA (arXiv:2404.17762): MANIQA's image branch (`vit`, `transposed_attention`, `swin`) ends in a
weighted score for each patch; these and the two semantic vectors are the three experts that a
linear gate, without softmax, mixes for each image. Equal to the reference within 1e-4 of every
stage's spread, with its weights (`weights`).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from agiqa.stage2.paper.network.config import CHANNEL_BLOCKS, PaperConfig
from agiqa.stage2.paper.network.swin import ScaledSwin
from agiqa.stage2.paper.network.transposed_attention import TransposedAttention
from agiqa.stage2.paper.network.vit import Backbone, run

SEMANTIC = ("semantic_content", "coherence")  # order of the semantic vectors
EXPERTS = (*SEMANTIC, "visual")  # order of the gate's weights


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
        self.semantic_experts = nn.ModuleDict({name: _semantic_expert(config) for name in SEMANTIC})
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


def _semantic_expert(config: PaperConfig) -> nn.Sequential:
    """A semantic vector `(B, D)` to `(B, N)`."""
    linear = nn.Linear(config.semantic_width, config.patches)
    return nn.Sequential(linear, nn.ReLU(), nn.Dropout(config.dropout))
