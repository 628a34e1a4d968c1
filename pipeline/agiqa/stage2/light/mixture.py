"""The mixture of the `light` preset: how much each expert's score counts, always or by image.

After MA-AGIQA (arXiv:2404.17762): one expert a vector, and a gate that sees them all. Here an
expert is a kernel ridge on one frozen vector (`ridge`), and the gate weighs the experts' scores:
with frozen features that is as good as mixing hidden states, and can be read off. A mixture is
constant, its weights the same for all images, or its gate moves them by image.

The constant mixture fits the experts' left-out scores best (`nnls`). The gate starts from it and is
trained in full batches at a few rates and penalties, each stopped where the validation side no
longer gains. It is kept only if the validation images' squared errors fall by more than LEAST_GAIN
standard errors of their mean difference (after Breiman et al. 1984, who take one): without that a
gate which learnt noise is kept in half of the splits, and costs what it should earn.

T targets (quality, alignment ...) have a mixture of their own each. Trained on D data sets, a
mixture is on one common scale, and a rising line for each data set reads it on that one's own.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Self, cast

import numpy as np
import torch
from scipy.optimize import lsq_linear, nnls
from torch import Tensor
from torch.optim.adam import adam

from agiqa.core.params import Fit
from agiqa.data.metrics import plcc, srcc
from agiqa.stage2.contract import Expected
from agiqa.stage2.light.ridge import measured

log = logging.getLogger(__name__)

RATES = (1.0, 0.1)  # times fit.lr
PENALTIES = (1e-3, 1e-2)  # times the sum of the gate's squares
LOOK_EVERY = 10  # epochs between looks at the validation side
PATIENCE = 5  # looks without a gain before a training ends
LEAST_GAIN = 2.0  # standard errors
LEAST = {"train": 60, "val": 20}  # images; with fewer the mixture stays constant
FLOOR = 0.02  # share with which an expert enters the training, so that its gate can move
NAMES = ("shares", "scale", "lines", "gate", "epochs")  # of the tensors that a run keeps
FLOAT = ("F32",)

Curve = list[dict[str, Any]]  # epoch, train_loss, val_srcc, val_plcc


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


@dataclass(frozen=True)
class SideScores:
    """What the mixtures see of a split's training or validation side, n images."""

    components: Tensor  # (n, k) of all experts side by side
    expert_scores: Tensor  # (n, E, T); of training images left-out ones
    mos: Tensor  # (n, T), in units of the training deviations
    dataset: Tensor  # (n,) int64

    @property
    def among(self) -> np.ndarray | None:
        """Which data set each image is of; None where all are of one."""
        return self.dataset.numpy() if bool(self.dataset.any()) else None


def constant_mixture(side: SideScores, datasets: int, softmax: bool, experts: slice) -> Mixture:
    """Fit one mixture of some of the experts for all images of the training side.

    With several data sets each has a constant in the fit, and then a line of its own.
    """
    scores, mos = side.expert_scores.double().numpy(), side.mos.double().numpy()
    total, targets = scores.shape[1:]
    weights = np.zeros((total, targets))
    lines = np.stack([np.ones((datasets, targets)), np.zeros((datasets, targets))])
    members = (side.dataset.numpy()[:, None] == np.arange(datasets)).astype(float)
    for t in range(targets):
        weights[experts, t] = _weights(scores[:, experts, t], mos[:, t], members)
        if datasets > 1:
            lines[..., t] = _lines(scores[..., t] @ weights[:, t], mos[:, t], members)
    scale = weights.sum(axis=0)
    return Mixture(
        shares=torch.from_numpy(weights / scale).float(),
        scale=torch.from_numpy(scale).float(),
        lines=torch.from_numpy(lines).float(),
        gate=torch.zeros(0, total, targets),
        epochs=torch.zeros(targets, dtype=torch.int64),
        softmax=softmax,
    )


def _weights(expert_scores: np.ndarray, mos: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Weights `(E,)`, none below zero, of scores `(n, E)` that fit the MOS `(n,)` best."""
    experts, datasets = expert_scores.shape[1], members.shape[1]
    if datasets == 1:
        weights = nnls(expert_scores, mos)[0]
    else:
        least = np.r_[np.zeros(experts), np.full(datasets, -np.inf)]
        fitted = lsq_linear(np.hstack([expert_scores, members]), mos, (least, np.inf)).x
        weights = np.maximum(fitted[:experts], 0)
    # Experts that say nothing at all still rank images somehow, all alike.
    return weights if weights.sum() > FLOOR**2 else np.full(experts, FLOOR**2 / experts)


def _lines(common: np.ndarray, mos: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Slope and offset `(2, D)` of each data set's MOS on scores `(n,)` on the common scale."""
    lines = []
    for rows in members.T.astype(bool):
        covariance = float(np.cov(common[rows], mos[rows], ddof=0)[0, 1])
        slope = covariance / max(float(np.var(common[rows])), 1e-12) if covariance > 0 else 1.0
        lines.append((slope, float(np.mean(mos[rows] - slope * common[rows]))))
    return np.transpose(lines)


def train_gate(
    constant: Mixture, train: SideScores, val: SideScores, settings: Fit
) -> tuple[Mixture, Curve]:
    """Train a gate from the constant mixture, and keep it for the targets that gain by it.

    Returns:
        The mixture, and the learning curve of the training that does best for the first target:
        epoch, train_loss, val_srcc, val_plcc, from the constant mixture as epoch 0.
    """
    start = replace(constant, gate=torch.zeros(train.components.shape[1], *constant.shares.shape))
    curve = [_look(start, train, val, 0)]
    if any(len(s.mos) < LEAST[name] for name, s in (("train", train), ("val", val))):
        _tell_once(*LEAST.values(), len(train.mos), len(val.mos))
        return start, curve
    trials = _train(start, train, val, settings)
    errors = _errors(start, val)
    kept = start
    chosen = [int(np.argmin([float(t.errors[:, c].mean()) for t in trials]))
              for c in range(len(start.scale))]  # fmt: skip
    for target, number in enumerate(chosen):
        gain = errors[:, target] - trials[number].errors[:, target]
        if float(gain.mean()) > LEAST_GAIN * float(gain.std()) / len(gain) ** 0.5:
            kept = _with_target(kept, trials[number].best, target)
    return kept, curve + trials[chosen[0]].curve


@cache
def _tell_once(*counts: int) -> None:
    """Log why there is no gate, once for all splits of these sizes."""
    log.info(
        "A gate needs %d training and %d validation images, found %d and %d: the mixture stays "
        "constant.", *counts,
    )  # fmt: skip


@dataclass
class _Trial:
    """One training: for each target the mixture of its best epoch."""

    columns: slice  # its targets among those of all trials
    best: Mixture
    errors: Tensor  # (m, T), squared, of the validation side
    curve: Curve
    since: int = 0  # looks without a gain for any target

    @torch.no_grad()
    def look(self, mixture: Mixture, train: SideScores, val: SideScores, epoch: int) -> None:
        """Note the mixture of all trials as it is now, for each target that it is the best of."""
        if self.since == PATIENCE:
            return
        own = _of_all(mixture, lambda part: part[..., self.columns])
        errors = _errors(own, val)
        self.curve.append(_look(own, train, val, epoch))
        better = torch.nonzero(errors.mean(dim=0) < self.errors.mean(dim=0)).flatten().tolist()
        for target in better:
            self.best = _with_target(self.best, own, target)
            self.errors[:, target] = errors[:, target]
        self.since = 0 if better else self.since + 1


def _train(start: Mixture, train: SideScores, val: SideScores, settings: Fit) -> list[_Trial]:
    """Train with every rate and penalty until no target gained for PATIENCE looks.

    All trials go on at once, as if they were further targets, those of one rate side by side:
    reading the components takes nearly all the time, and one reading serves all trials.
    """
    targets = len(start.scale)
    trials = [
        _Trial(slice(first, first + targets), start, torch.full_like(val.mos, torch.inf), [])
        for first in range(0, len(RATES) * len(PENALTIES) * targets, targets)
    ]
    wide = _of_all(start, lambda part: _repeat(part, len(trials)))
    scores, mos = (_repeat(part, len(trials)) for part in (train.expert_scores, train.mos))
    repeated = replace(train, expert_scores=scores, mos=mos)
    penalties = torch.tensor(PENALTIES).repeat_interleave(targets).repeat(len(RATES))
    optimisers = [_Adam(_trainable(start), rate * settings.lr) for rate in RATES]

    def current(epoch: int) -> Mixture:
        joined: dict[str, Any] = {
            name: torch.cat([optimiser.tensors[name] for optimiser in optimisers], dim=-1)
            for name in optimisers[0].tensors
        }
        joined["shares"] = joined["shares"].softmax(dim=0)
        return replace(wide, **joined, epochs=torch.full_like(wide.epochs, epoch))

    for epoch in range(1, settings.epochs + 1):
        mixture = current(epoch)
        errors = _errors(mixture, repeated).mean(dim=0)
        loss = (errors + penalties * mixture.gate.square().sum(dim=(0, 1))).sum()
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
        if epoch % LOOK_EVERY and epoch < settings.epochs:
            continue
        mixture = current(epoch)
        for trial in trials:
            trial.look(mixture, train, val, epoch)
        if all(trial.since == PATIENCE for trial in trials):
            break
    return trials


class _Adam:
    """PyTorch's Adam by its function: the class would import the compiler, for over two seconds."""

    def __init__(self, tensors: dict[str, Tensor], lr: float) -> None:
        self.tensors, self.lr = tensors, lr
        self.means, self.squares = ([torch.zeros_like(t) for t in tensors.values()] for _ in (1, 2))
        self.steps = [torch.zeros(()) for _ in tensors]

    @torch.no_grad()
    def step(self) -> None:
        """Move the tensors by their gradients, and take these away."""
        trained = list(self.tensors.values())
        gradients = [cast(Tensor, tensor.grad) for tensor in trained]
        adam(
            trained, gradients, self.means, self.squares, [], self.steps, foreach=False,
            amsgrad=False, maximize=False, beta1=0.9, beta2=0.999, lr=self.lr, weight_decay=0.0,
            eps=1e-8,
        )  # fmt: skip
        for tensor in trained:
            tensor.grad = None


def _trainable(start: Mixture) -> dict[str, Tensor]:
    """What one rate trains, once for each penalty: the shares' logits, the scale and the gate."""
    logits = torch.log(start.shares.clamp_min(FLOOR))
    tensors = {"shares": logits, "scale": start.scale, "gate": start.gate}
    return {n: _repeat(t, len(PENALTIES)).requires_grad_() for n, t in tensors.items()}


def _repeat(part: Tensor, times: int) -> Tensor:
    """Lay a tensor `(..., T)` beside itself, `(..., times T)`."""
    return torch.cat([part] * times, dim=-1)


def _of_all(mixture: Mixture, change: Callable[[Tensor], Tensor]) -> Mixture:
    """The mixture with each of its tensors changed alike; targets are their last axis."""
    changed: dict[str, Any] = {name: change(getattr(mixture, name)) for name in NAMES}
    return replace(mixture, **changed)


def _with_target(mixture: Mixture, other: Mixture, target: int) -> Mixture:
    """Copy the mixture, its weights for one target taken from another."""
    copy = _of_all(mixture, Tensor.clone)
    for name in NAMES:
        getattr(copy, name)[..., target] = getattr(other, name).detach()[..., target]
    return copy


def mixture_scores(mixture: Mixture, side: SideScores) -> Tensor:
    """Score the side's images `(n, T)`, in units of the training deviations."""
    return mixture.on_scale(mixture.mix(side.components, side.expert_scores)[0], side.dataset)


def _errors(mixture: Mixture, side: SideScores) -> Tensor:
    """Squared errors `(n, T)`, in units of the training deviations."""
    return (mixture_scores(mixture, side) - side.mos).square()


def _look(mixture: Mixture, train: SideScores, val: SideScores, epoch: int) -> dict[str, Any]:
    """One row of the curve; SRCC and PLCC are means over targets and data sets."""
    score, mos = mixture_scores(mixture, val).numpy(), val.mos.numpy()
    measures: dict[str, Callable[[np.ndarray, np.ndarray], float]]
    measures = {"val_srcc": srcc, "val_plcc": plcc}
    agreement = {
        name: float(np.mean(measured(mos, score, val.among, measure)))
        for name, measure in measures.items()
    }
    return {"epoch": epoch, "train_loss": float(_errors(mixture, train).mean()), **agreement}
