"""The mixture of the `light` preset: how much each expert's score counts, always or by image.

After MA-AGIQA (arXiv:2404.17762): one expert a vector, and a gate that sees them all. Here an
expert is a kernel ridge on one frozen vector (`kernel`), and the gate weighs the experts' scores:
with frozen features that is as good as mixing hidden states, and can be read off. A mixture is
constant, its weights the same for all images, or its gate moves them by image: `gate` trains both.

T targets (quality, alignment ...) have a mixture of their own each. Trained on D data sets, a
mixture is on one common scale, and a rising line for each data set reads it on that one's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from agiqa.stage2.contract import Expected

NAMES = ("shares", "scale", "lines", "gate", "epochs")  # of the tensors that a run keeps
FLOAT = ("F32",)


@dataclass(frozen=True)
class Mixture:
    """Weights of E experts for T targets; the gate's are added by image."""

    shares: Tensor  # (E, T), none below 0, of each target 1 in all
    scale: Tensor  # (T,), of the weighted mean
    lines: Tensor  # (2, D, T): slope and offset of each data set
    gate: Tensor  # (k, E, T), what a component adds to an expert's weight; (0, E, T): constant
    epochs: Tensor  # (T,) int64, for how many the gate was trained; 0: the weights are constant
    softmax: bool  # whether the gate multiplies the shares, or adds to them as the paper's

    def weigh(self, components: Tensor) -> Tensor:
        """Weights `(N, E, T)` for images with all experts' components `(N, k)` side by side."""
        if not self.gate.shape[0]:
            return self.shares.expand(len(components), *self.shares.shape)
        moved = torch.einsum("nk,ket->net", components, self.gate)
        if not self.softmax:
            return self.shares + moved
        weights = self.shares * (moved - moved.amax(dim=1, keepdim=True)).exp()
        return weights / weights.sum(dim=1, keepdim=True)

    def mix(self, components: Tensor, expert_scores: Tensor) -> tuple[Tensor, Tensor]:
        """Scores `(N, T)` on the common scale of experts' scores `(N, E, T)`, and the weights."""
        weights = self.weigh(components)
        return self.scale * (weights * expert_scores).sum(dim=1), weights

    def on_scale(self, score: Tensor, dataset: int | Tensor) -> Tensor:
        """Scores `(N, T)` on the scale of a data set, one for all images or `(N,)`."""
        return score * self.lines[0, dataset] + self.lines[1, dataset]

    def tensors(self) -> dict[str, Tensor]:
        """Name what a run keeps; copies, since a constant mixture may stand twice in a split."""
        return {name: getattr(self, name).clone() for name in NAMES}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], softmax: bool) -> Self:
        """Make the mixture of `tensors` again."""
        return cls(softmax=softmax, **{name: tensors[name] for name in NAMES})

    @staticmethod
    def expected(kept: int, experts: int, targets: int, datasets: int) -> Expected:
        """Name the tensors for a gate that sees so many components, 0 for none."""
        return {
            "shares": (FLOAT, (experts, targets)),
            "scale": (FLOAT, (targets,)),
            "lines": (FLOAT, (2, datasets, targets)),
            "gate": (FLOAT, (kept, experts, targets)),
            "epochs": (("I64",), (targets,)),
        }
