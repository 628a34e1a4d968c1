"""The `light` regressor: a mixture of experts over one visual and several semantic vectors.

After MA-AGIQA (arXiv:2404.17762): one expert a vector, and a gate that sees them all. Here each
expert gives a score of its own, a linear part plus a GELU layer, and the gate weighs the scores
per image: with frozen features that is as good as mixing hidden states and can be read off. The
linear parts start as a ridge regression (`warm_start`), the gate even and the GELU parts at zero,
so training departs from the ridge and the validation side decides how far. M regressors (splits
times ensemble members) train as one, their weights stacked in the first dimension.
"""

import math
from collections.abc import Sequence
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
    """One vector's expert: `(M, B, k)` to scores `(M, B)`."""

    def __init__(self, models: int, inputs: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear = StackedLinear(models, inputs, 1, gain=0.0)
        self.hidden = StackedLinear(models, inputs, hidden)
        self.head = StackedLinear(models, hidden, 1, gain=0.0)
        self.dropout = nn.Dropout(dropout)

    def forward(self, vector: Tensor) -> Tensor:
        """Linear part plus GELU part."""
        curved: Tensor = self.head(self.dropout(functional.gelu(self.hidden(vector))))
        straight: Tensor = self.linear(vector)
        return (straight + curved).squeeze(-1)


class MixtureOfExperts(nn.Module):
    """M gated regressors; either input may be left out for the single-source baselines.

    Args:
        models: M, regressors trained as one.
        visual: width of the visual input, or 0 for none.
        semantic: width of each semantic input.
        prompts: P, semantic inputs, or 0 for none.
        hidden: width of the experts' GELU part.
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
        self.widths = [visual] * (visual > 0) + [semantic] * prompts
        self.experts = nn.ModuleList(Expert(models, k, hidden, dropout) for k in self.widths)
        self.gate = StackedLinear(models, sum(self.widths), len(self.widths), gain=0.0)
        self.softmax = gate == "softmax"
        if not self.softmax:  # starts as an even mixture, like the softmax
            nn.init.constant_(self.gate.bias, 1 / len(self.widths))
        self.noise = noise

    def forward(self, visual: Tensor | None, semantic: Tensor | None) -> Prediction:
        """Visual `(M, B, k)` and semantic `(M, B, P, k')` to scores and gate weights."""
        vectors = self.vectors(visual, semantic)
        if self.training and self.noise > 0:
            vectors = [vector + self.noise * torch.randn_like(vector) for vector in vectors]
        opinions = torch.stack(
            [expert(vector) for expert, vector in zip(self.experts, vectors, strict=True)], dim=-1
        )
        gate = self.gate(torch.cat(vectors, dim=-1))
        if self.softmax:
            gate = gate.softmax(dim=-1)
        return Prediction((gate * opinions).sum(dim=-1), gate)

    @staticmethod
    def vectors(visual: Tensor | None, semantic: Tensor | None) -> list[Tensor]:
        """The experts' inputs in their order."""
        found = [visual] if visual is not None else []
        return found + (list(semantic.unbind(dim=-2)) if semantic is not None else [])

    def warm_start(self, models: slice, weights: Tensor) -> None:
        """Let `models` begin as the linear regression `weights` on all inputs side by side."""
        parts: Sequence[Tensor] = weights.split(self.widths)
        with torch.no_grad():
            for place, part in enumerate(parts):
                linear = self.get_parameter(f"experts.{place}.linear.weight")
                linear[models] = part.unsqueeze(-1) * len(self.widths)  # the even gate divides by E

    def groups(
        self, lr: float, linear_lr: float, weight_decay: float
    ) -> Sequence[dict[str, object]]:
        """Parameter groups for an optimiser: the ridge moves slowly and is not decayed."""
        slow = [p for name, p in self.named_parameters() if ".linear." in name]
        fast = [p for name, p in self.named_parameters() if ".linear." not in name]
        return [
            {"params": slow, "lr": lr * linear_lr, "weight_decay": 0.0},
            {"params": fast, "lr": lr, "weight_decay": weight_decay},
        ]
