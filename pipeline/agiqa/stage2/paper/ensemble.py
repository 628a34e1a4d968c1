"""What a fit with the `paper` presets yields and how it scores: one network for each split.

Beside `ensemble`, which is the `light` preset's. The splits' weights stay in the run's file, mapped
into memory, and take turns in one network on accelerate's device, always in float32: so a run
scores the same however it was trained, and ten splits need no more memory than one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from agiqa.core.float32 import full_float32
from agiqa.core.memory import with_halving
from agiqa.core.progress import track
from agiqa.stage2.light.moe import Prediction
from agiqa.stage2.paper.augmentation import as_input
from agiqa.stage2.paper.network import PaperConfig, PaperRegressor

BATCH = 16  # images at a time


class Images(Protocol):
    """Pixels of N images: an array, or rows of a file (`agiqa.stage2.paper.pixels`)."""

    def __len__(self) -> int: ...

    def __getitem__(self, images: np.ndarray, /) -> np.ndarray:
        """Pixels `(n, S, S, 3)` uint8."""


@dataclass(frozen=True, eq=False)
class PaperEnsemble:
    """S splits, one network each."""

    config: PaperConfig
    weights: Sequence[Mapping[str, Tensor]]  # of each split's network

    def predict(self, pixels: Images, semantic: np.ndarray) -> Prediction:
        """Scores on the MOS scale for N images.

        Args:
            pixels: of the images.
            semantic: vectors `(N, 2, D)` in the order of the experts.

        Returns:
            score `(S, 1, N, 1)`, gate `(S, 1, N, E, 1)` and quality map `(S, 1, N, h, w)`, with
            dimensions for members and targets as the light preset's.
        """
        rows = np.arange(len(pixels))
        found = [self.predict_split(s, pixels, semantic, rows) for s in range(len(self.weights))]
        maps = [each.quality_map for each in found if each.quality_map is not None]
        return Prediction(
            torch.stack([each.score for each in found])[:, None, :, None],
            torch.stack([each.gate for each in found])[:, None, ..., None],
            torch.stack(maps)[:, None],
        )

    def predict_split(
        self, place: int, pixels: Images, semantic: np.ndarray, rows: np.ndarray
    ) -> Prediction:
        """What the split's network says of the images `rows` `(n,)`, without the S and K of it."""
        self.network.load_state_dict(self.weights[place])
        device = next(self.network.parameters()).device
        return with_halving(
            lambda size: score_rows(self.network, device, pixels, semantic, rows, size, "Score"),
            BATCH,
            "scoring",
            "or score on the CPU",
        )

    @cached_property
    def network(self) -> PaperRegressor:
        """The network that the splits' weights take turns in."""
        from accelerate import PartialState

        return PaperRegressor(self.config).to(PartialState().device).eval()


def score_rows(
    forward: Callable[[Tensor, Tensor], Prediction],
    device: torch.device,
    pixels: Images,
    semantic: np.ndarray,
    rows: np.ndarray,
    size: int,
    shown: str = "",
) -> Prediction:
    """Scores, gates and maps of the images `rows` `(n,)`, `size` at a time, brought to the CPU.

    `shown` says in a word what a progress bar is for; none without it.
    """
    starts: Iterable[int] = range(0, len(rows), size)
    if shown:
        starts = track(starts, shown, unit=size, total=len(rows))
    parts: list[Prediction] = []
    with torch.inference_mode(), full_float32():
        for start in starts:
            chosen = rows[start : start + size]
            image = as_input(torch.from_numpy(pixels[chosen]).to(device))
            found = forward(image, torch.from_numpy(semantic[chosen]).to(device))
            parts.append(Prediction(*(each.float().cpu() for each in found if each is not None)))
    return Prediction(*(torch.cat(each) for each in zip(*parts, strict=True)))
