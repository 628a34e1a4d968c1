"""The `light` regressor: a mixture of experts over one visual and several semantic vectors.

After MA-AGIQA (arXiv:2404.17762): one expert a vector, and a gate that sees them all. Here each
expert gives a score of its own, that of its kernel ridge (`kernel`) plus a GELU layer's correction,
and the gate weighs the scores per image: with frozen features that is as good as mixing hidden
states and can be read off. The gate starts as the one best mixture for all images (`warm_start`)
and the corrections at zero, so training departs from there and the validation side decides how far.
M regressors (splits times ensemble members) train as one, their weights stacked in the first
dimension.

T targets (quality, alignment ...) share each expert's GELU layer and have a line and a gate of
their own. Trained on D data sets, what a regressor says of an image is on one common scale, and
`on_scale` reads it on a data set's own: a rising line for each, learnt with the rest.
"""

import copy
import math
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from agiqa.core.params import Fit


class MixtureOutput(NamedTuple):
    """What M regressors say about B images each."""

    score: Tensor  # (M, B, T), in units of the training MOS's deviation
    gate: Tensor  # (M, B, E, T): weight of each expert


@dataclass(frozen=True)
class Sizes:
    """How large the regressors of an ensemble are, beside what the settings say."""

    splits: int
    visual: int  # k, components of the visual vector
    semantic: int  # k', of each semantic vector
    prompts: int
    targets: int
    datasets: int

    def regressor(self, variant: str, settings: Fit) -> "MixtureOfExperts":
        """Make the regressors of a variant: `moe`, or with one of the inputs alone."""
        return MixtureOfExperts(
            models=self.splits * settings.members,
            visual=self.visual if variant != "semantic" else 0,
            semantic=self.semantic,
            prompts=self.prompts if variant != "visual" else 0,
            hidden=settings.hidden,
            gate=settings.gate,
            dropout=settings.dropout,
            noise=settings.feature_noise,
            targets=self.targets,
            datasets=self.datasets,
        )


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
    """What one expert adds to its kernel ridge: vectors `(M, B, k)` to scores `(M, B, T)`."""

    def __init__(self, models: int, inputs: int, hidden: int, targets: int, dropout: float) -> None:
        super().__init__()
        self.hidden = StackedLinear(models, inputs, hidden)
        self.head = StackedLinear(models, hidden, targets, gain=0.0)
        self.dropout = nn.Dropout(dropout)

    def forward(self, vector: Tensor) -> Tensor:
        """One GELU layer; zero before training."""
        score: Tensor = self.head(self.dropout(functional.gelu(self.hidden(vector))))
        return score


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
        targets: T, scores an image.
        datasets: D, data sets with scales of their own.
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
        targets: int = 1,
        datasets: int = 1,
    ) -> None:
        super().__init__()
        self.widths = [visual] * (visual > 0) + [semantic] * prompts
        self.corrections = nn.ModuleList(
            Correction(models, k, hidden, targets, dropout) for k in self.widths
        )
        experts = len(self.widths)
        self.gate = StackedLinear(models, sum(self.widths), experts * targets, gain=0.0)
        self.scale = nn.Parameter(torch.ones(models, targets))
        self.shape = (experts, targets)
        self.softmax = gate == "softmax"
        self.noise = noise
        if datasets > 1:  # of each data set's line
            self.log_slope = nn.Parameter(torch.zeros(models, datasets, targets))
            self.offset = nn.Parameter(torch.zeros(models, datasets, targets))

    def forward(
        self, visual: Tensor | None, semantic: Tensor | None, expert_scores: Tensor
    ) -> MixtureOutput:
        """Score B images with each of M regressors.

        Args:
            visual: components `(M, B, k)`, or None.
            semantic: components `(M, B, P, k')`, or None.
            expert_scores: of the kernel ridges `(M, B, E, T)`.
        """
        vectors = self.vectors(visual, semantic)
        if self.training and self.noise > 0:
            vectors = [vector + self.noise * torch.randn_like(vector) for vector in vectors]
        corrections = [
            correct(vector) for correct, vector in zip(self.corrections, vectors, strict=True)
        ]
        gate = self.gate(torch.cat(vectors, dim=-1)).unflatten(-1, self.shape)
        if self.softmax:
            gate = gate.softmax(dim=-2)
        mixed = (gate * (expert_scores + torch.stack(corrections, dim=-2))).sum(dim=-2)
        return MixtureOutput(self.scale[:, None] * mixed, gate)

    def on_scale(self, score: Tensor, dataset: Tensor) -> Tensor:
        """Scores `(M, B, T)` on the scales of the data sets that the images are of, `(M, B)`."""
        if not hasattr(self, "offset"):
            return score
        model = torch.arange(len(score))[:, None]
        return score * self.log_slope[model, dataset].exp() + self.offset[model, dataset]

    @staticmethod
    def vectors(visual: Tensor | None, semantic: Tensor | None) -> list[Tensor]:
        """The experts' inputs in their order."""
        first = [visual] if visual is not None else []
        return first + (list(semantic.unbind(dim=-2)) if semantic is not None else [])

    def only(self, models: slice) -> Self:
        """Copy some of the M regressors."""
        part = copy.deepcopy(self)
        for weight in part.parameters():
            weight.data = weight.data[models]
        return part

    def warm_start(self, models: slice, mixture: Tensor, offset: Tensor) -> None:
        """Let `models` begin with one gate for all images.

        Args:
            models: of one split.
            mixture: weights above zero `(E, T)`.
            offset: of each data set's line `(D, T)`.
        """
        total = mixture.sum(dim=0)
        share = (mixture / total).flatten()
        with torch.no_grad():
            self.gate.bias[models] = share.log() if self.softmax else share
            self.scale[models] = total
            if hasattr(self, "offset"):
                self.offset[models] = offset
