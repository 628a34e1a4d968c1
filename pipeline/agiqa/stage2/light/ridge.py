"""Ridge regression: the baseline that every run is compared with.

With more features than images its dual form needs one matrix of inner products; its eigenvectors
give the solution for every penalty at once, and the principal components with it. Of many images
eigenvectors take too long: then the features' own matrix is decomposed where they are few, and
otherwise each penalty has a Cholesky factor. All three are exact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from agiqa.core.weight_files import FLOATS
from agiqa.stage2.contract import Expected, of_arrays
from agiqa.stage2.light.agreement import rank_agreement

ALPHAS = (100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5)  # tried in turn; the validation side decides


@dataclass(frozen=True)
class Gram:
    """Eigenvalues (ascending) and eigenvectors (columns) of inner products `(n, n)`."""

    values: np.ndarray  # (n,)
    vectors: np.ndarray  # (n, n)

    def weights(
        self, train: Sequence[np.ndarray], target: np.ndarray, alphas: Sequence[float]
    ) -> list[np.ndarray]:
        """Solve for A penalties, of which one too small to be told from zero may give nan.

        Args:
            train: features side by side, each `(n, F_i)`.
            target: `(n, T)`, its mean taken out.
            alphas: the penalties.

        Returns:
            Weights `(F_i, A * T)` of each part: penalty after penalty, T columns each.
        """
        duals = self.vectors @ self._shrunk(self.vectors.T @ self._cast(target), alphas)
        return [part.T @ duals.astype(np.float32) for part in train]

    def _cast(self, numbers: np.ndarray) -> np.ndarray:
        return numbers.astype(self.vectors.dtype)

    def _shrunk(self, turned: np.ndarray, alphas: Sequence[float]) -> np.ndarray:
        values = np.maximum(self.values, 0)
        return np.concatenate([turned / (values + alpha)[:, None] for alpha in alphas], axis=1)


@dataclass(frozen=True)
class Scatter(Gram):
    """The same of the features' inner products `(F, F)`, for many images with few features."""

    def weights(
        self, train: Sequence[np.ndarray], target: np.ndarray, alphas: Sequence[float]
    ) -> list[np.ndarray]:
        """Solve as `Gram` does."""
        moment = np.concatenate([part.T @ self._cast(target) for part in train])
        weights = self.vectors @ self._shrunk(self.vectors.T @ moment, alphas)
        ends = np.cumsum([part.shape[1] for part in train])
        return np.split(weights.astype(np.float32), ends[:-1])


@dataclass(frozen=True)
class Inner:
    """Inner products `(n, n)` as they are, for many images with many features."""

    products: np.ndarray

    def weights(
        self, train: Sequence[np.ndarray], target: np.ndarray, alphas: Sequence[float]
    ) -> list[np.ndarray]:
        """Solve as `Gram` does."""
        whole = torch.from_numpy(self.products)
        wanted = torch.from_numpy(target.astype(self.products.dtype))
        duals = []
        for alpha in alphas:
            shifted = whole.clone()
            shifted.diagonal().add_(alpha)
            factor, failed = torch.linalg.cholesky_ex(shifted)
            del shifted
            solved = torch.full_like(wanted, torch.nan)
            duals.append(solved if failed else torch.cholesky_solve(wanted, factor))
        columns = torch.hstack(duals).numpy()
        return [part.T @ columns for part in train]


def decompose(inner: np.ndarray) -> Gram:
    """Eigendecomposition of a matrix of inner products `(n, n)`."""
    values, vectors = torch.linalg.eigh(torch.from_numpy(np.ascontiguousarray(inner)))
    return Gram(values.numpy(), vectors.numpy())


def solver_of_many(train: Sequence[np.ndarray], most: int) -> Scatter | Inner:
    """What solves for many images: eigenvectors of the features where these are at most `most`.

    Args:
        train: features side by side, each `(n, F_i)`.
        most: rows of a matrix whose eigenvectors are still quickly found.
    """
    if sum(part.shape[1] for part in train) > most:
        products = train[0] @ train[0].T
        for part in train[1:]:
            products += part @ part.T
        return Inner(products)
    whole = np.concatenate(train, axis=1)
    gram = decompose(whole.T @ whole)
    return Scatter(gram.values, gram.vectors)


@dataclass(frozen=True)
class Ridge:
    """A fitted ridge: for each target weights on standardised features."""

    weights: np.ndarray  # (F, T)
    bias: np.ndarray  # (T,) mean target of the training side
    alpha: np.ndarray  # (T,) the penalties

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Standardised features `(N, F)` to scores `(N, T)` in the units of the targets."""
        return np.asarray(features @ self.weights + self.bias)

    def tensors(self) -> dict[str, Tensor]:
        """Name what a run keeps."""
        return of_arrays({"weights": self.weights, "bias_alpha": np.stack([self.bias, self.alpha])})

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Make the ridge of `tensors` again."""
        return cls(tensors["weights"].numpy(), *tensors["bias_alpha"].numpy())

    @staticmethod
    def expected(width: int, targets: int) -> Expected:
        """Name the tensors for features so wide and T targets."""
        return {"weights": (FLOATS, (width, targets)), "bias_alpha": (FLOATS, (2, targets))}


def fit_ridge(
    train: Sequence[np.ndarray],
    solver: Gram | Inner,
    target: np.ndarray,
    val: Sequence[np.ndarray],
    val_target: np.ndarray,
    val_dataset: np.ndarray | None = None,
    alphas: Sequence[float] = ALPHAS,
) -> Ridge:
    """Fit on the training side and pick each target's penalty by SRCC on the validation side.

    Args:
        train: standardised features side by side, each `(n, F_i)`.
        solver: made for `train`.
        target: scores of the training side `(n, T)`.
        val: the same features of the validation side, each `(m, F_i)`.
        val_target: its scores `(m, T)`.
        val_dataset: which data set each of its images is of `(m,)`; None: all of one. With
            several, the mean of their SRCCs counts.
        alphas: penalties to try.
    """
    bias = target.mean(axis=0)
    parts = solver.weights(train, target - bias, alphas)
    scores = sum(part @ weights for part, weights in zip(val, parts, strict=True))
    count = target.shape[1]
    values = [
        rank_agreement(val_target, scores[:, start : start + count], val_dataset)
        for start in range(0, len(alphas) * count, count)
    ]
    best = np.nanargmax(np.nan_to_num(values, nan=-np.inf), axis=0)
    columns = best * count + np.arange(count)
    weights = np.concatenate([part[:, columns] for part in parts])
    return Ridge(weights, bias, np.asarray(alphas)[best])
