"""One split's models: a kernel ridge for each expert, the mixtures of their scores, and the ridges.

The visual vector is the first expert's, each semantic vector is one more's. `training` fits
kernels and ridges, `gate` the mixtures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from agiqa.core.weight_files import FLOATS
from agiqa.stage2.conformal import HeldOut
from agiqa.stage2.contract import Expected, Header, inside, matrix_shape, nested, of_arrays
from agiqa.stage2.light.expert import ExpertInputs
from agiqa.stage2.light.kernel import KernelRidge
from agiqa.stage2.light.mixture import Mixture
from agiqa.stage2.light.ridge import Ridge
from agiqa.stage2.presets import MIXTURE
from agiqa.stage2.targets import Scales

# The baselines, and which of the experts' vectors each of them sees.
RIDGES = {"ridge": slice(None), "ridge_visual": slice(0, 1), "ridge_semantic": slice(1, None)}

# The mixtures, and which of the experts each of them hears; MIXTURE alone may have a gate.
CONSTANT = "constant"
VARIANTS = {
    "visual": slice(0, 1),
    "semantic": slice(1, None),
    CONSTANT: slice(None),
    MIXTURE: slice(None),
}


@dataclass(frozen=True)
class SplitModel:
    """What is fitted on one split, in units of its training deviations."""

    seed: int
    kernels: tuple[KernelRidge, ...]  # of each expert
    ridges: Mapping[str, Ridge]  # by RIDGES
    scales: Scales  # of the training side
    mixtures: Mapping[str, Mixture]  # by VARIANTS
    held_out: HeldOut  # errors of the mixture with the gate

    def expert_scores(self, inputs: ExpertInputs) -> Tensor:
        """Scores `(N, E, T)` of the kernel ridges, in units of the training deviations."""
        pairs = zip(self.kernels, inputs.kernels, strict=True)
        return torch.stack([ridge.scores(kernel) for ridge, kernel in pairs], dim=1)

    def mix(
        self, inputs: ExpertInputs, variant: str = MIXTURE, dataset: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Scores `(N, T)` on the MOS scale and weights `(N, E, T)`; a gradient may be asked for.

        Args:
            inputs: of N images.
            variant: which mixture.
            dataset: on whose scale, where the run was trained on several data sets.
        """
        mixture = self.mixtures[variant]
        score, weights = mixture.mix(inputs.joined, self.expert_scores(inputs))
        mean, sd = (
            torch.from_numpy(part[dataset]).float() for part in (self.scales.mean, self.scales.sd)
        )
        return mixture.on_scale(score, dataset) * sd + mean, weights

    def errors(self, target: int, dataset: int) -> np.ndarray:
        """Absolute errors `(m,)` on the validation side's images of one data set, on its scale."""
        return self.held_out.of(target, dataset) * float(self.scales.sd[dataset, target])

    def ridge_scores(self, name: str, components: Sequence[Tensor], dataset: int) -> np.ndarray:
        """Scores `(N, T)` of a baseline on the MOS scale, by each expert's components."""
        visible = torch.cat(list(components[RIDGES[name]]), dim=1).numpy()
        return self.scales.restore(self.ridges[name].predict(visible), dataset)

    def tensors(self) -> dict[str, Tensor]:
        """Name what a run keeps."""
        named = of_arrays({"mos": np.stack([self.scales.mean, self.scales.sd])})
        for index, kernel in enumerate(self.kernels):
            named |= nested(f"kernel.{index}", kernel.tensors())
        for name, ridge in self.ridges.items():
            named |= nested(name, ridge.tensors())
        for name, mixture in self.mixtures.items():
            named |= nested(f"mixture.{name}", mixture.tensors())
        return named | nested("held_out", self.held_out.tensors())

    @classmethod
    def from_tensors(
        cls, seed: int, tensors: Mapping[str, Tensor], anchors: Sequence[int], softmax: bool
    ) -> Self:
        """Make the split of `tensors` again, each expert with so many anchors."""
        kernels = (
            KernelRidge.from_tensors(inside(f"kernel.{index}", tensors), count)
            for index, count in enumerate(anchors)
        )
        return cls(
            seed,
            tuple(kernels),
            {name: Ridge.from_tensors(inside(name, tensors)) for name in RIDGES},
            Scales(*tensors["mos"].numpy()),
            {
                name: Mixture.from_tensors(inside(f"mixture.{name}", tensors), softmax)
                for name in VARIANTS
            },
            HeldOut.from_tensors(inside("held_out", tensors)),
        )

    @staticmethod
    def expected(
        header: Header, index: int, kept: Sequence[int], targets: int, datasets: int
    ) -> Expected:
        """Name the tensors of the split at `index`, of experts with so many components.

        Raises:
            ValueError: a tensor that says how large others are is missing, empty or no matrix.
        """
        named: Expected = {"mos": (FLOATS, (2, datasets, targets))}
        for expert in range(len(kept)):
            kernel = f"kernel.{expert}"
            anchors, _ = matrix_shape(header, f"split.{index}.{kernel}.dual")
            named |= nested(kernel, KernelRidge.expected(anchors, targets))
        for name, visible in RIDGES.items():
            named |= nested(name, Ridge.expected(sum(kept[visible]), targets))
        for name in VARIANTS:
            gated = sum(kept) if name == MIXTURE else 0
            expected = Mixture.expected(gated, len(kept), targets, datasets)
            named |= nested(f"mixture.{name}", expected)
        images, _ = matrix_shape(header, f"split.{index}.held_out.errors")
        named |= nested("held_out", HeldOut.expected(images, targets))
        return nested(f"split.{index}", named)
