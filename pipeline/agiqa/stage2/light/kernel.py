"""Kernel ridge regression with a Gaussian kernel, the core of each expert of the `light` preset.

Frozen features lose about .002 SRCC where only a line may be drawn through them; a Gaussian kernel
bends it and still has a closed form. The leave-one-out predictions come from the same solution and
are what the gate is trained on: fitted values would make every expert look right.

The closed form takes n^3 operations for n images. Beyond some thousands the kernel is therefore
replaced by what a random subset of the images, the anchors, says of it (the Nystroem method,
Williams and Seeger 2001): all images train, the anchors alone bear weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from agiqa.core.weight_files import FLOATS
from agiqa.stage2.contract import Expected, of_arrays
from agiqa.stage2.light.agreement import agreement

WIDTH = 0.8  # gamma, over the median squared distance between training images
ALPHAS = (0.1, 0.3, 1.0, 3.0)  # penalties
CHUNK = 4096  # images scored at once: bounds the memory of a kernel
JITTER = 1e-4  # on the diagonal of the anchors' kernel, so that two equal images do not break it


@dataclass(frozen=True)
class KernelRidge:
    """A fitted kernel ridge: for each target one weight for each anchor."""

    anchors: np.ndarray  # (m, k) float16, components of training images, all or some of them
    dual: np.ndarray  # (m, T) float32
    gamma: float  # score = sum of dual * exp(-gamma * squared distance)

    def predict(self, components: np.ndarray) -> np.ndarray:
        """Components `(N, k)` to scores `(N, T)` in the units of the targets it was fitted on."""
        starts = range(0, len(components), CHUNK)
        parts = [self.scores(torch.from_numpy(components[s : s + CHUNK])) for s in starts]
        return np.asarray(torch.cat(parts).numpy())

    def scores(self, components: Tensor) -> Tensor:
        """The same of components `(N, k)` that a gradient may be asked for, all at once.

        In double precision: large weights of both signs cancel, and an image must not score
        otherwise in another batch.
        """
        anchors, dual = torch.from_numpy(self.wide).double(), torch.from_numpy(self.dual).double()
        distances = _squared_distances(components.double(), anchors)
        return (_kernel(distances, self.gamma) @ dual).float()

    def tensors(self) -> dict[str, Tensor]:
        """Name what a run keeps."""
        arrays = {"anchors": self.anchors, "dual": self.dual, "gamma": np.array(self.gamma)}
        return of_arrays(arrays)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Make the kernel ridge of `tensors` again."""
        anchors, dual = tensors["anchors"].numpy(), tensors["dual"].numpy()
        return cls(anchors, dual, float(tensors["gamma"]))

    @staticmethod
    def expected(anchors: int, kept: int, targets: int) -> Expected:
        """Name the tensors for m anchors, k components and T targets."""
        return {
            "anchors": (FLOATS, (anchors, kept)),
            "dual": (FLOATS, (anchors, targets)),
            "gamma": (FLOATS, (1,)),
        }

    @cached_property
    def wide(self) -> np.ndarray:
        """`anchors` in float32, kept: from float16 each call would take several times as long."""
        return self.anchors.astype(np.float32)


def fit_kernel_ridge(
    train: np.ndarray,
    target: np.ndarray,
    dataset: np.ndarray | None = None,
    alphas: Sequence[float] = ALPHAS,
    anchors: np.ndarray | None = None,
) -> tuple[KernelRidge, np.ndarray]:
    """Fit with the penalty that predicts left-out images best, and the next smaller one.

    The mean of the two is the fit: an image's prompt usually has other images in training, which
    makes leave-one-out a little too sure of a large penalty. On 10 splits of AGIQA-3K this was
    steadier than a choice of width and penalty by the validation side.

    Where the images are of several data sets, each has a free constant beside the kernel, so that
    a data set of better images is not taken for one of milder raters. The constants are no part of
    the result: the kernel ridge says how images rank across all of them.

    Args:
        train: components `(n, k)`.
        target: scores `(n, T)`, each data set's centred.
        dataset: which data set each image is of `(n,)`, from 0; None: all of one.
        alphas: penalties to try, ascending.
        anchors: rows of the images that bear weights `(m,)`; None: all of them, without
            approximation.

    Returns:
        The kernel ridge, and its leave-one-out predictions `(n, T)`: of each training image from
        all others (Rasmussen and Williams 2006, equation 5.12); with anchors, from all others
        under the same approximation of the kernel.
    """
    halved = train.astype(np.float16)
    rounded = halved.astype(np.float32)
    kernel: _Whole | _Subset
    kernel = _Whole.of(rounded) if anchors is None else _Subset.of(rounded, rounded[anchors])
    wanted = torch.from_numpy(target.astype(np.float32))
    members = None if dataset is None else _indicators(dataset)
    duals, left_out, values = [], [], []
    for alpha in alphas:
        solved, inverse = kernel.solve(
            alpha, wanted if members is None else torch.hstack([wanted, members])
        )
        dual = solved[:, : wanted.shape[1]]
        constants = torch.zeros_like(wanted)
        if members is not None:  # dual = P y with P = A⁻¹ − A⁻¹Z (Z'A⁻¹Z)⁻¹ Z'A⁻¹
            of_members = solved[:, wanted.shape[1] :]
            among = torch.linalg.inv(members.T @ of_members)
            free = among @ (members.T @ dual)
            dual = dual - of_members @ free
            inverse = inverse - ((of_members @ among) * of_members).sum(dim=1)
            constants = members @ free
        duals.append(kernel.weights(dual))
        left_out.append(wanted - dual / inverse[:, None] - constants)
        values.append(agreement(target, left_out[-1].numpy(), dataset))
    dual, left_out_scores = torch.empty_like(duals[0]), torch.empty_like(wanted)
    for column, best in enumerate(np.nanargmax(np.nan_to_num(values, nan=-np.inf), axis=0)):
        pair = slice(max(0, int(best) - 1), int(best) + 1)
        dual[:, column] = torch.stack(duals[pair])[..., column].mean(dim=0)
        left_out_scores[:, column] = torch.stack(left_out[pair])[..., column].mean(dim=0)
    kept = halved if anchors is None else halved[anchors]
    return KernelRidge(kept, dual.numpy(), kernel.gamma), left_out_scores.numpy()


@dataclass(frozen=True)
class _Whole:
    """The kernel K between all n training images."""

    kernel: Tensor  # (n, n)
    gamma: float

    @classmethod
    def of(cls, rows: np.ndarray) -> "_Whole":
        distances = _squared_distances(torch.from_numpy(rows), torch.from_numpy(rows))
        gamma = _gamma(distances)
        return cls(_kernel(distances, gamma), gamma)

    def solve(self, alpha: float, right: Tensor) -> tuple[Tensor, Tensor]:
        """`A⁻¹ right` and the diagonal of `A⁻¹` for `A = K + alpha`."""
        factor = torch.linalg.cholesky(self.kernel + alpha * torch.eye(len(self.kernel)))
        return torch.cholesky_solve(right, factor), torch.cholesky_inverse(factor).diagonal()

    def weights(self, dual: Tensor) -> Tensor:
        """Weights of the anchors, which are the training images themselves."""
        return dual


@dataclass(frozen=True)
class _Subset:
    """The kernel as m anchors know it: K ≈ F F' with F = K_nm L'⁻¹ and L L' = K_mm."""

    features: Tensor  # (n, m), F
    inner: Tensor  # (m, m), F' F
    root: Tensor  # (m, m), L
    gamma: float

    @classmethod
    def of(cls, rows: np.ndarray, chosen: np.ndarray) -> "_Subset":
        anchors = torch.from_numpy(chosen)
        distances = _squared_distances(anchors, anchors)
        gamma = _gamma(distances)
        among = _kernel(distances, gamma).double()
        root = torch.linalg.cholesky(among + JITTER * torch.eye(len(among))).float()
        across = _kernel(_squared_distances(anchors, torch.from_numpy(rows)), gamma)
        features = torch.linalg.solve_triangular(root, across, upper=False).T
        return cls(features, features.T @ features, root, gamma)

    def solve(self, alpha: float, right: Tensor) -> tuple[Tensor, Tensor]:
        """`A⁻¹ right` and the diagonal of `A⁻¹` for `A = F F' + alpha`."""
        factor = torch.linalg.cholesky(self.inner + alpha * torch.eye(len(self.inner)))
        half = torch.linalg.solve_triangular(factor, self.features.T, upper=False)  # (m, n)
        solved = (right - half.T @ (half @ right)) / alpha
        return solved, (1 - half.square().sum(dim=0)) / alpha

    def weights(self, dual: Tensor) -> Tensor:
        """Weights of the anchors: `dual` is of all training images."""
        moments = self.features.T @ dual
        weights: Tensor = torch.linalg.solve_triangular(self.root.T, moments, upper=True)
        return weights


def _gamma(distances: Tensor) -> float:
    return WIDTH / max(float(distances.median()), 1e-6)


def _indicators(dataset: np.ndarray) -> Tensor:
    """Which data set an image is of, `(n, D)` of zeros and ones."""
    return torch.from_numpy((dataset[:, None] == np.unique(dataset)).astype(np.float32))


def _squared_distances(rows: Tensor, anchors: Tensor) -> Tensor:
    """Squared Euclidean distances `(N, n)` in the precision of both."""
    squares = rows.square().sum(dim=1)[:, None] + anchors.square().sum(dim=1)
    return torch.addmm(squares, rows, anchors.T, alpha=-2).clamp_min(0)


def _kernel(distances: Tensor, gamma: float) -> Tensor:
    return torch.exp(-gamma * distances)
