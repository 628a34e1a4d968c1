"""What models of any preset are to a run: what they predict, and the tensors that hold them.

Each model says which tensors hold it (`tensors`), is made from them again (`from_tensors`), and
says what they must be in a file of others (`expected`): that is held against the file's header
before anything is read or room is made for it, so that a size in a stranger's settings cannot be
larger than the weights that they gave.

The networks of `paper` and `tuned` score here, in training and of a run. The splits' weights of a
run stay in its file, mapped into memory, and take turns in one network on accelerate's device,
always in float32: so a run scores the same however it was trained, and ten splits need no more
memory than one.

Prediction intervals come from the errors on images that a model was not fitted on. For one split,
split conformal prediction (Lei et al., JASA 113, 2018, section 2): the score, give or take that
error of its validation side which INTERVAL_LEVEL of them stay below. For all splits together, whose
mean score a new image gets, CV+ (Barber et al., Annals of Statistics 49, 2021, section 3): each
split's score less and plus each of its errors, and of all of these the outer ones are cut off. The
validation side has chosen penalties and the gate, no more; that its images and new ones come from
one population is assumed.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from agiqa.core.memory import with_halving
from agiqa.core.processes import full_float32
from agiqa.core.progress import track
from agiqa.core.weight_files import Entry
from agiqa.stage2.presets import INTERVAL_LEVEL

CHUNK = 512  # images whose intervals are reckoned at once

Named = TypeVar("Named")  # a tensor, or what a file's header says of it
Header = Mapping[str, Entry]  # of a file: its tensors by name
Expected = dict[str, tuple[tuple[str, ...], tuple[int, ...]]]  # by name: possible types, and shape
NetworkInputs = Callable[[np.ndarray, torch.device], tuple[Tensor, ...]]  # of images by row `(n,)`


class Rows(Protocol):
    """Pixels or tokens of N images: an array, or rows of a file that is read as they are asked."""

    def __len__(self) -> int: ...

    def __getitem__(self, images: np.ndarray, /) -> np.ndarray:
        """Give those of some images, by number `(n,)`."""


class Prediction(NamedTuple):
    """What S splits say of N images, on the MOS scale."""

    score: Tensor  # (S, N, T)
    gate: Tensor  # (S, N, E, T): weight of each expert
    quality_map: Tensor | None = None  # (S, N, h, w); None: pooled vectors have no place


class SplitScores(NamedTuple):
    """What one model of one split says of n images, on the MOS scale."""

    score: np.ndarray  # (n, T)
    gate: np.ndarray | None  # (n, E, T)
    reach: np.ndarray | None = None  # (T,), of the prediction intervals to either side


def of_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Arrays as tensors under the same names; of none a scalar."""
    return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}


def nested(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The same under names that begin with `prefix` and a full stop."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def inside(prefix: str, tensors: Mapping[str, Named]) -> dict[str, Named]:
    """What `nested` was given, of a larger mapping."""
    start = f"{prefix}."
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}


def matrix_shape(header: Header, name: str) -> tuple[int, int]:
    """Look up the shape of a matrix that says how large others are.

    Raises:
        ValueError: it is missing, empty, or no matrix.
    """
    if name not in header:
        raise ValueError(f"tensor {name} is missing")
    shape = header[name].shape
    if len(shape) != 2 or math.prod(shape) == 0:
        raise ValueError(f"tensor {name}: expected 2 dimensions, found {shape}")
    return shape[0], shape[1]


def score_by(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    inputs: NetworkInputs,
    rows: np.ndarray,
    most: int,
    shown: str = "",
) -> list[Tensor]:
    """Score images by a network with a split's weights, on its device; as `score_rows`.

    At most `most` at a time, fewer where memory runs out.
    """
    network.load_state_dict(weights)
    device = next(network.parameters()).device
    return with_halving(
        lambda size: score_rows(network, inputs, rows, size, device, shown),
        most,
        "scoring",
        "or score on the CPU",
    )


def score_rows(
    forward: Callable[..., Any],
    inputs: NetworkInputs,
    rows: np.ndarray,
    size: int,
    device: torch.device,
    shown: str = "",
) -> list[Tensor]:
    """What a network puts out of the images `rows` `(n,)`, `size` at a time, on the CPU.

    `shown` says in a word what a progress bar is for; none without it.
    """
    starts: Iterable[int] = range(0, len(rows), size)
    if shown:
        starts = track(starts, shown, unit=size, total=len(rows))
    parts = []
    with torch.inference_mode(), full_float32():
        for start in starts:
            output = forward(*inputs(rows[start : start + size], device))
            outputs = output if isinstance(output, tuple) else (output,)
            parts.append([part.float().cpu() for part in outputs])
    return [torch.cat(part) for part in zip(*parts, strict=True)]


@dataclass(frozen=True)
class HeldOut:
    """Absolute errors of a split's mixture on its validation side."""

    errors: np.ndarray  # (m, T) float32, in units of the training deviations
    dataset: np.ndarray  # (m,) int64, which data set each image is of

    def of(self, target: int, dataset: int) -> np.ndarray:
        """Errors `(m,)` in one target, of one data set's images."""
        return np.asarray(self.errors[self.dataset == dataset, target])

    def tensors(self) -> dict[str, Tensor]:
        """Name what a run keeps."""
        return of_arrays({"errors": self.errors, "dataset": self.dataset})

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Make it of `tensors` again."""
        return cls(tensors["errors"].numpy(), tensors["dataset"].numpy())

    @staticmethod
    def expected(images: int, targets: int) -> Expected:
        """Name the tensors for so many images."""
        return {"errors": (("F32",), (images, targets)), "dataset": (("I64",), (images,))}


def reach(errors: np.ndarray, level: float = INTERVAL_LEVEL) -> float:
    """How far an interval reaches to either side of a score, by held-out errors `(m,)`.

    Infinite with fewer than level / (1 - level) of them: nine, for 90 %.
    """
    rank = math.ceil(round((len(errors) + 1) * level, 9))
    return math.inf if rank > len(errors) else float(np.partition(errors, rank - 1)[rank - 1])


def cv_plus(
    scores: np.ndarray, errors: Sequence[np.ndarray], level: float = INTERVAL_LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends `(N,)` for images that S models score `(S, N)`.

    Args:
        scores: of models that were fitted without the images of their errors.
        errors: absolute errors of each model on its held-out images.
        level: of the interval. Where the errors are too few for it the ends are infinite.
    """
    count = sum(map(len, errors))
    rank = math.ceil(round((count + 1) * level, 9))  # of the upper ends, from the smallest
    if rank > count:
        ends = np.full(scores.shape[1], np.inf)
        return -ends, ends
    low, high = [], []
    for start in range(0, scores.shape[1], CHUNK):
        part = scores[:, start : start + CHUNK]
        pairs = list(zip(part, errors, strict=True))
        below = np.concatenate([own[:, None] - error for own, error in pairs], axis=1)
        above = np.concatenate([own[:, None] + error for own, error in pairs], axis=1)
        low.append(np.partition(below, count - rank, axis=1)[:, count - rank])
        high.append(np.partition(above, rank - 1, axis=1)[:, rank - 1])
    return np.concatenate(low), np.concatenate(high)


def held_out(score: Tensor, mos: Tensor, dataset: Tensor) -> HeldOut:
    """Errors of scores `(m, T)` against the MOS, both in units of the training deviations."""
    return HeldOut(torch.abs(score - mos).float().numpy(), dataset.numpy())
