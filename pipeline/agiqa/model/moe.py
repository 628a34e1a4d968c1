"""The `light` regressor: a mixture of experts over one visual and several semantic vectors.

After MA-AGIQA (arXiv:2404.17762): one expert a vector, and a gate that sees them all. Here each
expert gives a score of its own, the opinion of its kernel ridge (`kernel`) plus a GELU layer's
correction, and the gate weighs the scores per image: with frozen features that is as good as
mixing hidden states and can be read off. The gate starts as the one best mixture for all images
(`warm_start`) and the corrections at zero, so training departs from there and the validation side
decides how far. M regressors (splits times ensemble members) train as one, their weights stacked
in the first dimension.
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


class Correction(nn.Module):
    """What one expert adds to its kernel ridge: vectors `(M, B, k)` to scores `(M, B)`."""

    def __init__(self, models: int, inputs: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.hidden = StackedLinear(models, inputs, hidden)
        self.head = StackedLinear(models, hidden, 1, gain=0.0)
        self.dropout = nn.Dropout(dropout)

    def forward(self, vector: Tensor) -> Tensor:
        """One GELU layer; zero before training."""
        score: Tensor = self.head(self.dropout(functional.gelu(self.hidden(vector))))
        return score.squeeze(-1)


class MixtureOfExperts(nn.Module):
    """M gated regressors; either input may be left out for the single-source baselines.

    Args:
        models: M, regressors trained as one.
        visual: width of the visual input, or 0 for none.
        semantic: width of each semantic input.
        prompts: P, semantic inputs, or 0 for none.
        hidden: width of the experts' GELU layer.
        gate: softmax, or linear as in the paper.
        dropout: on the experts' GELU layer.
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
        self.widths = [visual] * (visual > 0) + [semantic] * prompts
        self.corrections = nn.ModuleList(
            Correction(models, k, hidden, dropout) for k in self.widths
        )
        self.gate = StackedLinear(models, sum(self.widths), len(self.widths), gain=0.0)
        self.scale = nn.Parameter(torch.ones(models, 1))
        self.softmax = gate == "softmax"
        self.noise = noise

    def forward(
        self, visual: Tensor | None, semantic: Tensor | None, opinions: Tensor
    ) -> Prediction:
        """Score B images with each of M regressors.

        Args:
            visual: components `(M, B, k)`, or None.
            semantic: components `(M, B, P, k')`, or None.
            opinions: scores of the kernel ridges `(M, B, E)`.
        """
        vectors = self.vectors(visual, semantic)
        if self.training and self.noise > 0:
            vectors = [vector + self.noise * torch.randn_like(vector) for vector in vectors]
        corrections = [
            correct(vector) for correct, vector in zip(self.corrections, vectors, strict=True)
        ]
        gate = self.gate(torch.cat(vectors, dim=-1))
        if self.softmax:
            gate = gate.softmax(dim=-1)
        mixed = (gate * (opinions + torch.stack(corrections, dim=-1))).sum(dim=-1)
        return Prediction(self.scale * mixed, gate)

    @staticmethod
    def vectors(visual: Tensor | None, semantic: Tensor | None) -> list[Tensor]:
        """The experts' inputs in their order."""
        found = [visual] if visual is not None else []
        return found + (list(semantic.unbind(dim=-2)) if semantic is not None else [])

    def warm_start(self, models: slice, mixture: Tensor) -> None:
        """Let `models` begin with one gate for all images: `mixture` `(E,)`, weights above zero."""
        total = mixture.sum()
        share = mixture / total
        with torch.no_grad():
            self.gate.bias[models] = share.log() if self.softmax else share
            self.scale[models] = total
