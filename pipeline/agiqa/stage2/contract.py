"""What models of either preset are to a run: what they predict, and the tensors that hold them.

Each model says which tensors hold it (`tensors`), is made from them again (`from_tensors`), and
says what they must be in a file of others (`expected`): that is held against the file's header
before anything is read or room is made for it, so that a size in a stranger's settings cannot be
larger than the weights that they gave.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from agiqa.core.weight_files import Entry

Named = TypeVar("Named")  # a tensor, or what a file's header says of it
Header = Mapping[str, Entry]  # of a file: its tensors by name
Expected = dict[str, tuple[tuple[str, ...], tuple[int, ...]]]  # by name: possible types, and shape


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
