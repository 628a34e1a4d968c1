"""Ridge regression in two forms: linear, the baseline of every run, and the kernel of each expert.

**Linear** (`Ridge`), on the components of the experts' vectors, as they are all but what a run
drops of a vector. The eigenvectors of the components' products give the solution for every penalty
at once.

**With a Gaussian kernel** (`KernelRidge`), the core of each expert of the `light` preset. Frozen
features lose about .002 SRCC where only a line may be drawn through them; a Gaussian kernel bends
it and still has a closed form. The leave-one-out predictions come from the same solution and are
what the gate is trained on: fitted values would make every expert look right. The closed form takes
n^3 operations for n images. Beyond some thousands the kernel is therefore replaced by what a random
subset of the images, the anchors, says of it (the Nystroem method, Williams and Seeger 2001): all
images train, the anchors alone bear weights.

Penalties are chosen by how well scores agree with the MOS (`measured`). With several data sets the
mean of theirs counts: across them neither ranks nor lines mean anything, for each has raters and
its own scale.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from scipy.linalg.blas import ssyrk
from torch import Tensor

from agiqa.core.weight_files import FLOATS
from agiqa.data.metrics import plcc, srcc
from agiqa.stage2.contract import Expected, of_arrays

ALPHAS = (100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5)  # penalties of the linear ridge, tried in turn
KERNEL_ALPHAS = (0.1, 0.3, 1.0, 3.0)  # those of the kernel ridge, by left-out images
WIDTH = 0.8  # gamma, over the median squared distance between training images
JITTER = 1e-4  # on the diagonal of the anchors' kernel, so that two equal images do not break it

Measure = Callable[[np.ndarray, np.ndarray], float]


def measured(
    mos: np.ndarray, score: np.ndarray, dataset: np.ndarray | None, measure: Measure
) -> np.ndarray:
    """Measure each target `(T,)`, the mean over data sets; nan where it is not defined.

    Args:
        mos: `(n, T)`, in any unit.
        score: `(n, T)`.
        dataset: which data set each image is of `(n,)`; None: all of one.
        measure: of one target's MOS and scores.
    """
    of = np.zeros(len(mos)) if dataset is None else dataset
    by_dataset = [
        [measure(mos[of == one, t], score[of == one, t]) for t in range(mos.shape[1])]
        for one in np.unique(of)
    ]
    return np.asarray(np.mean(by_dataset, axis=0))


def agreement(mos: np.ndarray, score: np.ndarray, dataset: np.ndarray | None = None) -> np.ndarray:
    """SRCC + PLCC `(T,)`; arguments as `measured`."""
    return measured(mos, score, dataset, lambda a, b: srcc(a, b) + plcc(a, b))


@dataclass(frozen=True)
class Ridge:
    """A fitted ridge: for each target weights on components."""

    weights: np.ndarray  # (k, T)
    bias: np.ndarray  # (T,)
    alpha: np.ndarray  # (T,) the penalties

    def predict(self, components: np.ndarray) -> np.ndarray:
        """Components `(N, k)` to scores `(N, T)` in the units of the targets."""
        return np.asarray(components @ self.weights + self.bias)

    def tensors(self) -> dict[str, Tensor]:
        """Name what a run keeps."""
        return of_arrays({"weights": self.weights, "bias_alpha": np.stack([self.bias, self.alpha])})

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Make the ridge of `tensors` again."""
        return cls(tensors["weights"].numpy(), *tensors["bias_alpha"].numpy())

    @staticmethod
    def expected(width: int, targets: int) -> Expected:
        """Name the tensors for so many components and T targets."""
        return {"weights": (FLOATS, (width, targets)), "bias_alpha": (FLOATS, (2, targets))}


def fit_ridge(
    train: np.ndarray,
    target: np.ndarray,
    val: np.ndarray,
    val_target: np.ndarray,
    val_dataset: np.ndarray | None = None,
    alphas: Sequence[float] = ALPHAS,
) -> Ridge:
    """Fit on the training side and pick each target's penalty by SRCC on the validation side.

    Args:
        train: features `(n, k)`.
        target: scores of the training side `(n, T)`.
        val: the same features of the validation side `(m, k)`.
        val_target: its scores `(m, T)`.
        val_dataset: which data set each of its images is of `(m,)`; None: all of one. With
            several, the mean of their SRCCs counts.
        alphas: penalties to try.
    """
    centre, mean = train.mean(axis=0), target.mean(axis=0)
    centred = (train - centre).astype(np.float64)
    values, vectors = (
        part.numpy() for part in torch.linalg.eigh(torch.from_numpy(centred.T @ centred))
    )
    turned = vectors.T @ (centred.T @ (target - mean))  # (k, T)
    shrunk = [turned / (np.maximum(values, 0) + alpha)[:, None] for alpha in alphas]
    weights = np.stack([vectors @ part for part in shrunk])  # (A, k, T)
    measures = [measured(val_target, (val - centre) @ own, val_dataset, srcc) for own in weights]
    best = np.nanargmax(np.nan_to_num(measures, nan=-np.inf), axis=0)
    chosen = np.stack([weights[row, :, t] for t, row in enumerate(best)], axis=1)
    return Ridge(chosen.astype(np.float32), mean - centre @ chosen, np.asarray(alphas)[best])


@dataclass(frozen=True)
class KernelRidge:
    """A fitted kernel ridge: for each target one weight for each anchor."""

    rows: np.ndarray  # (m,) int32: the anchors, some or all of A images
    dual: np.ndarray  # (m, T) float32

    def scores(self, kernel: Tensor) -> Tensor:
        """Kernel `(N, A)` of images and anchors to scores `(N, T)` in the units it was fitted on.

        In double precision: large weights of both signs cancel, and an image must not score
        otherwise in another batch.
        """
        dual = torch.zeros(kernel.shape[1], self.dual.shape[1], dtype=torch.float64)
        dual[torch.from_numpy(self.rows).long()] = torch.from_numpy(self.dual).double()
        return (kernel.double() @ dual).float()

    def tensors(self) -> dict[str, Tensor]:
        """Name what a run keeps."""
        return of_arrays({"rows": self.rows, "dual": self.dual})

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], images: int) -> Self:
        """Make the kernel ridge of `tensors` again, whose anchors are some of so many images.

        Raises:
            ValueError: a row is none of theirs.
        """
        rows = tensors["rows"].numpy()
        if rows.min() < 0 or rows.max() >= images:
            raise ValueError(f"a kernel stands on row {rows.max()} of {images} anchors")
        return cls(rows, tensors["dual"].numpy())

    @staticmethod
    def expected(anchors: int, targets: int) -> Expected:
        """Name the tensors for m anchors and T targets."""
        return {"rows": (("I32",), (anchors,)), "dual": (FLOATS, (anchors, targets))}


def fit_kernel_ridge(
    train: np.ndarray,
    target: np.ndarray,
    gamma: float,
    dataset: np.ndarray | None = None,
    alphas: Sequence[float] = KERNEL_ALPHAS,
    anchors: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> tuple[KernelRidge, np.ndarray]:
    """Fit with the penalty that predicts left-out images best.

    Left out is an image alone, or its whole group: where the protocol keeps groups apart, other
    images of an image's prompt would tell what those of a test side cannot.

    Where the images are of several data sets, each has a free constant beside the kernel, so that
    a data set of better images is not taken for one of milder raters. The constants are no part of
    the result: the kernel ridge says how images rank across all of them.

    Args:
        train: components `(n, k)`.
        target: scores `(n, T)`, each data set's centred.
        gamma: of `gaussian`.
        dataset: which data set each image is of `(n,)`, from 0; None: all of one.
        alphas: penalties to try, ascending.
        anchors: rows of the images that bear weights `(m,)`; None: all of them, without
            approximation.
        groups: which group each image is of `(n,)`; None: each is one of its own.

    Returns:
        The kernel ridge, and its left-out predictions `(n, T)`: of each group of training images
        from all others (Rasmussen and Williams 2006, equation 5.12, in blocks); with anchors, from
        all others under the same approximation of the kernel.
    """
    images = torch.from_numpy(train.astype(np.float16).astype(np.float32))  # as a run keeps them
    kernel: _Whole | _Subset
    if anchors is None:
        kernel = _Whole(gaussian(images, images, gamma))
    else:
        kernel = _Subset.of(images, images[anchors], gamma)
    wanted = torch.from_numpy(target.astype(np.float32))
    members = None  # which data set an image is of, (n, D) of zeros and ones
    if dataset is not None:
        members = torch.from_numpy((dataset[:, None] == np.unique(dataset)).astype(np.float32))
    duals, left_out, values = [], [], []
    for alpha in alphas:
        dual, inverse, constants = _solve(kernel, alpha, wanted, members)
        duals.append(kernel.weights(dual))
        left_out.append(wanted - inverse.errors(dual, groups) - constants)
        values.append(agreement(target, left_out[-1].numpy(), dataset))
    dual, left_out_scores = torch.empty_like(duals[0]), torch.empty_like(wanted)
    for column, best in enumerate(np.nanargmax(np.nan_to_num(values, nan=-np.inf), axis=0)):
        dual[:, column] = duals[best][:, column]
        left_out_scores[:, column] = left_out[best][:, column]
    rows = np.arange(len(train)) if anchors is None else anchors
    fitted = KernelRidge(rows.astype(np.int32), dual.numpy())
    return fitted, left_out_scores.numpy()


def _solve(
    kernel: "_Whole | _Subset", alpha: float, wanted: Tensor, members: Tensor | None
) -> "tuple[Tensor, _Inverse, Tensor]":
    """Solve for one penalty: duals `(n, T)`, the inverse, and each image's constant `(n, T)`.

    With members `(n, D)`, Z, the dual is P y with P = A⁻¹ − A⁻¹Z (Z'A⁻¹Z)⁻¹ Z'A⁻¹.
    """
    if members is None:
        dual, inverse = kernel.solve(alpha, wanted)
        return dual, inverse, torch.zeros_like(wanted)
    solved, inverse = kernel.solve(alpha, torch.hstack([wanted, members]))
    dual, of_members = solved[:, : wanted.shape[1]], solved[:, wanted.shape[1] :]
    among = torch.linalg.inv(members.T @ of_members)
    free = among @ (members.T @ dual)
    inverse = replace(inverse, less=of_members @ torch.linalg.cholesky(among))
    return dual - of_members @ free, inverse, members @ free


@dataclass(frozen=True)
class _Inverse:
    """The inverse of a matrix `(n, n)`, of which blocks on the diagonal are asked for."""

    own: Tensor  # (n, n), the inverse; or (m, n), H of a share times I - H'H
    share: float = 0.0  # 0: `own` is the inverse
    less: Tensor | None = None  # (n, D), L: L L' is taken away

    def errors(self, dual: Tensor, groups: np.ndarray | None) -> Tensor:
        """Errors `(n, T)` on each group, left out: its inverse block times its `dual` `(n, T)`."""
        if groups is None:
            whole = self.share * (1 - self.own.square().sum(dim=0))
            diagonal = whole if self.share else self.own.diagonal()
            if self.less is not None:
                diagonal = diagonal - self.less.square().sum(dim=1)
            return dual / diagonal[:, None]
        errors, order = torch.empty_like(dual), np.argsort(groups, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
            rows = torch.from_numpy(group)
            errors[rows] = torch.linalg.solve(self._block(rows), dual[rows])
        return errors

    def _block(self, rows: Tensor) -> Tensor:
        if self.share:
            part = self.own[:, rows]
            block = self.share * (torch.eye(len(rows)) - part.T @ part)
        else:
            block = self.own[rows][:, rows]
        return block if self.less is None else block - self.less[rows] @ self.less[rows].T


@dataclass(frozen=True)
class _Whole:
    """The kernel K between all n training images."""

    kernel: Tensor  # (n, n)

    def solve(self, alpha: float, right: Tensor) -> tuple[Tensor, _Inverse]:
        """`A⁻¹ right` and `A⁻¹` for `A = K + alpha`."""
        factor = torch.linalg.cholesky(self.kernel + alpha * torch.eye(len(self.kernel)))
        return torch.cholesky_solve(right, factor), _Inverse(torch.cholesky_inverse(factor))

    def weights(self, dual: Tensor) -> Tensor:
        """Weights of the anchors, which are the training images themselves."""
        return dual


@dataclass(frozen=True)
class _Subset:
    """The kernel as m anchors know it: K ≈ F F' with F = K_nm L'⁻¹ and L L' = K_mm."""

    features: Tensor  # (n, m), F
    inner: Tensor  # (m, m), F' F, its lower triangle
    root: Tensor  # (m, m), L

    @classmethod
    def of(cls, images: Tensor, anchors: Tensor, gamma: float) -> "_Subset":
        among = gaussian(anchors, anchors, gamma).double()
        root = torch.linalg.cholesky(among + JITTER * torch.eye(len(among))).float()
        across = gaussian(anchors, images, gamma)
        features = torch.linalg.solve_triangular(root, across, upper=False).T
        inner = ssyrk(1.0, features.T.numpy(), lower=1)  # half of it, in half the time
        return cls(features, torch.from_numpy(inner), root)

    def solve(self, alpha: float, right: Tensor) -> tuple[Tensor, _Inverse]:
        """`A⁻¹ right` and `A⁻¹` for `A = F F' + alpha`."""
        factor = torch.linalg.cholesky(self.inner + alpha * torch.eye(len(self.inner)))
        half = torch.linalg.solve_triangular(factor, self.features.T, upper=False)  # (m, n)
        solved = (right - half.T @ (half @ right)) / alpha
        return solved, _Inverse(half, 1 / alpha)

    def weights(self, dual: Tensor) -> Tensor:
        """Weights of the anchors: `dual` is of all training images."""
        moments = self.features.T @ dual
        weights: Tensor = torch.linalg.solve_triangular(self.root.T, moments, upper=True)
        return weights


def usual_gamma(components: np.ndarray) -> float:
    """WIDTH over the median squared distance between images with components `(n, k)`."""
    images = torch.from_numpy(components)
    return WIDTH / max(float(_squared_distances(images, images).median()), 1e-6)


def gaussian(components: Tensor, anchors: Tensor, gamma: float) -> Tensor:
    """Kernel `(N, A)` of components `(N, k)` and `(A, k)`: exp of -gamma times squared distance."""
    return torch.exp(-gamma * _squared_distances(components, anchors))


def _squared_distances(components: Tensor, anchors: Tensor) -> Tensor:
    """Squared Euclidean distances `(N, A)` in the precision of both."""
    squares = components.square().sum(dim=1)[:, None] + anchors.square().sum(dim=1)
    return torch.addmm(squares, components, anchors.T, alpha=-2).clamp_min(0)
