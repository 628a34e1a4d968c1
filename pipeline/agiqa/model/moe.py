"""The `light` regressor: a mixture of experts over one visual and several semantic vectors.

After MA-AGIQA (arXiv:2404.17762): one expert a vector, a gate that sees them all, and a linear
head on the gated sum. Each expert here is a linear map plus a GELU layer, for a frozen feature
leaves little else to learn. M regressors (splits times ensemble members) train as one, their
weights stacked in the first dimension, which keeps small matrices busy.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Prediction(NamedTuple):
    """What M regressors say about B images each."""

    score: Tensor  # (M, B), in units of the training MOS's deviation
    gate: Tensor  # (M, B, E): weight of each expert
    quality_map: Tensor | None = None  # (M, B, h, w); None: pooled vectors have no place


class StackedLinear(nn.Module):
    """M linear layers side by side: `(M, B, in)` to `(M, B, out)`."""

    def __init__(self, models: int, inputs: int, outputs: int, gain: float = 1.0) -> None:
        super().__init__()
        scale = gain / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.randn(models, inputs, outputs) * scale)
        self.bias = nn.Parameter(torch.zeros(models, 1, outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply each model's layer to its own rows."""
        outputs: Tensor = torch.baddbmm(self.bias, inputs, self.weight)
        return outputs


class Expert(nn.Module):
    """One vector's expert: `(M, B, k)` to `(M, B, hidden)`."""

    def __init__(self, models: int, inputs: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear = StackedLinear(models, inputs, hidden, gain=0.3)
        self.curved = StackedLinear(models, inputs, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, vector: Tensor) -> Tensor:
        """Linear part plus GELU part."""
        curved: Tensor = self.dropout(functional.gelu(self.curved(vector)))
        straight: Tensor = self.linear(vector)
        return curved + straight


class MixtureOfExperts(nn.Module):
    """M gated regressors; either input may be left out for the single-source baselines.

    Args:
        models: M, regressors trained as one.
        visual: width of the visual input, or 0 for none.
        semantic: width of each semantic input.
        prompts: P, semantic inputs, or 0 for none.
        hidden: width of the experts.
        gate: softmax, or linear as in the paper.
        dropout: on the experts' GELU part.
        noise: deviation of the Gaussian noise on the inputs in training.
    """

    def __init__(
        self,
        models: int,
        visual: int,
        semantic: int,
        prompts: int,
        hidden: int,
        gate: str,
        dropout: float,
        noise: float,
    ) -> None:
        super().__init__()
        widths = [visual] * (visual > 0) + [semantic] * prompts
        self.experts = nn.ModuleList(Expert(models, k, hidden, dropout) for k in widths)
        self.gate = StackedLinear(models, sum(widths), len(widths), gain=0.1)
        self.softmax = gate == "softmax"
        if not self.softmax:  # starts as an even mixture, like the softmax
            nn.init.constant_(self.gate.bias, 1 / len(widths))
        self.head = StackedLinear(models, hidden, 1)
        self.noise = noise

    def forward(self, visual: Tensor | None, semantic: Tensor | None) -> Prediction:
        """Visual `(M, B, k)` and semantic `(M, B, P, k')` to scores and gate weights."""
        vectors = [visual] if visual is not None else []
        vectors += list(semantic.unbind(dim=2)) if semantic is not None else []
        if self.training and self.noise > 0:
            vectors = [vector + self.noise * torch.randn_like(vector) for vector in vectors]
        opinions = torch.stack(
            [expert(vector) for expert, vector in zip(self.experts, vectors, strict=True)], dim=2
        )
        gate = self.gate(torch.cat(vectors, dim=-1))
        if self.softmax:
            gate = gate.softmax(dim=-1)
        mixed = (gate.unsqueeze(-1) * opinions).sum(dim=2)
        return Prediction(self.head(mixed).squeeze(-1), gate)
