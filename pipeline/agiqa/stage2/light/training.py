"""Stage 2, `fit`: ten splits times a few members of the light regressor, trained as one.

For every split the projections and ridge baselines (`closed_forms`) and three regressors (visual
only, semantic only, mixture of experts on both) see the training side; the validation side alone
picks penalties and epochs; the test side is not touched here.

Several targets share the projections, the kernels and the experts' layers. Images of several data
sets train together, each on the scale of its own (`targets`): errors are in units of that data
set's deviation, pairs are ranked and correlations taken within it alone.
"""

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import lsq_linear, nnls
from torch import Tensor

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Fit
from agiqa.core.progress import track
from agiqa.data.metrics import plcc, srcc
from agiqa.stage2.features import Features
from agiqa.stage2.light.agreement import of_each
from agiqa.stage2.light.closed_forms import SplitInputs, fit_split
from agiqa.stage2.light.ensemble import VARIANTS, Ensemble, predict_rows
from agiqa.stage2.light.losses import plcc_loss, rank_loss, squared_error
from agiqa.stage2.light.split_model import Inputs
from agiqa.stage2.targets import Scales, Side, Sides, Targets

log = logging.getLogger(__name__)

SELECT_EVERY = 2  # epochs between looks at the validation side
LEAST_SHARE = 0.02  # of the starting mixture for each expert, so that its gate can move
LEAST = {"train": 8, "val": 2}  # images a split needs


def fit_light(
    features: Features, targets: Targets, sides: Sides, settings: Fit
) -> tuple[Ensemble, list[dict[str, Any]]]:
    """Train on every split.

    Args:
        features: of all N images.
        targets: their scores.
        sides: by split seed, row numbers of train and val (a test side is not looked at).
        settings: `params.yaml`, section fit.

    Returns:
        The fitted ensemble, and the curves: model, seed, epoch, train_loss, val_srcc, val_plcc.

    Raises:
        AgiqaError: too few images to form a batch, or scores without spread.
    """
    for seed, side in sides.items():
        _require_enough(targets, seed, side)
    largest = max(len(side["train"]) for side in sides.values())
    if 0 < settings.anchors < largest:
        log.info(
            "Kernels and projections of %d training images stand on %d of them (fit.anchors).",
            largest,
            settings.anchors,
        )
    fitted = [
        fit_split(features, targets, seed, side, settings)
        for seed, side in track(list(sides.items()), "Projections and ridges")
    ]
    splits = tuple(split for split, _ in fitted)
    inputs = _inputs([known for _, known in fitted], len(targets.mos))
    curves: list[dict[str, Any]] = []
    regressors = {}
    for variant in VARIANTS:
        scales = [split.scales for split in splits]
        trainer = LightTrainer(variant, inputs, scales, sides, targets, settings)
        curves += trainer.train()
        regressors[variant] = trainer.regressor
    return Ensemble(splits, regressors, settings.members), curves


def _require_enough(targets: Targets, seed: int, side: Side) -> None:
    """Refuse a split with too few images of some data set, or without spread in their scores."""
    for number, dataset in enumerate(targets.datasets):
        where = f"Split {seed}" + (f" of '{dataset}'" if len(targets.datasets) > 1 else "")
        for name, least in LEAST.items():
            count = int((targets.dataset_of[side[name]] == number).sum())
            if count < least:
                raise AgiqaError(f"{where} has {count} {name} images; fit needs at least {least}.")
        train = side["train"][targets.dataset_of[side["train"]] == number]
        for column, target in enumerate(targets.names):
            if float(np.ptp(targets.mos[train, column])) == 0:
                raise AgiqaError(
                    f"All training images of {where[0].lower()}{where[1:]} have the same score "
                    f"'{target}'."
                )


def _inputs(splits: Sequence[SplitInputs], images: int) -> Inputs:
    """Lay out the inputs of all N images, zeros where a split's test side would stand."""

    def whole(parts: Sequence[np.ndarray]) -> Tensor:
        rows = np.zeros((len(splits), images, *parts[0].shape[1:]), dtype=np.float32)
        for place, (split, part) in enumerate(zip(splits, parts, strict=True)):
            rows[place, split.rows] = part
        return torch.from_numpy(rows)

    return Inputs(
        visual=whole([split.components[0] for split in splits]),
        semantic=whole([np.stack(split.components[1:], axis=1) for split in splits]),
        expert_scores=whole([split.expert_scores for split in splits]),
    )


class LightTrainer:
    """One variant, all splits and members at once; each split keeps its best epoch's weights.

    Args:
        variant: one of VARIANTS.
        inputs: of all N images.
        scales: of the splits' training sides.
        sides: by split seed, row numbers of train and val.
        targets: scores of all images.
        settings: `params.yaml`, section fit.
    """

    def __init__(
        self,
        variant: str,
        inputs: Inputs,
        scales: Sequence[Scales],
        sides: Sides,
        targets: Targets,
        settings: Fit,
    ) -> None:
        torch.manual_seed(settings.seed)
        self.variant, self.inputs, self.settings = variant, inputs, settings
        self.seeds = list(sides)
        self.train_rows = [sides[seed]["train"] for seed in self.seeds]
        self.val_rows = [sides[seed]["val"] for seed in self.seeds]
        scaled = [each.standardise(targets.mos, targets.dataset_of) for each in scales]
        self.mos = torch.from_numpy(np.stack(scaled).astype(np.float32))  # (S, N, T)
        self.dataset = torch.from_numpy(targets.dataset_of)
        self.several = len(targets.datasets) > 1
        self.regressor = inputs.sizes(len(targets.datasets)).regressor(variant, settings)
        self.split = torch.arange(len(scales)).repeat_interleave(settings.members)[:, None]
        self.batch = min(settings.batch_size, *map(len, self.train_rows))
        self.batches = min(map(len, self.train_rows)) // self.batch  # of an epoch
        for place in range(len(scales)):
            self._start_from_mixture(place)

    def train(self) -> list[dict[str, Any]]:
        """Train; returns the learning curves."""
        settings, regressor = self.settings, self.regressor
        optimiser = torch.optim.AdamW(
            regressor.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
        )
        rng = np.random.default_rng(settings.seed)
        best = np.full(len(self.seeds), -math.inf)
        kept = {name: weight.detach().clone() for name, weight in regressor.named_parameters()}
        curves: list[dict[str, Any]] = []
        for epoch in track(range(settings.epochs + 1), f"Fit {self.variant}"):
            losses = self._epoch(epoch, optimiser, rng)
            if epoch % SELECT_EVERY and epoch < settings.epochs:
                continue
            rows = self._validate(epoch, losses)
            curves += rows
            for place, row in enumerate(rows):
                value = row["val_srcc"] + row["val_plcc"]
                if value > best[place]:
                    best[place] = value
                    own = self._members(place)
                    for name, weight in regressor.named_parameters():
                        kept[name][own] = weight.detach()[own]
        regressor.load_state_dict(kept)
        regressor.eval()
        return curves

    def _epoch(
        self, epoch: int, optimiser: torch.optim.Optimizer, rng: np.random.Generator
    ) -> Tensor:
        """Train for an epoch, epoch 0 only looks at the start; mean losses `(M,)`."""
        self.regressor.train()
        orders = self._shuffle(rng, self.batches * self.batch)
        total = torch.zeros(len(orders))
        steps = self.settings.epochs * self.batches
        for batch in range(self.batches):
            step = max(0, epoch - 1) * self.batches + batch
            for group in optimiser.param_groups:
                group["lr"] = self.settings.lr * _schedule(step, steps, self.settings.warmup)
            with torch.set_grad_enabled(epoch > 0):
                loss = self._loss(orders[:, batch * self.batch : (batch + 1) * self.batch])
            if epoch > 0:
                optimiser.zero_grad()
                loss.sum().backward()
                optimiser.step()
            total += loss.detach()
        return total / self.batches

    def _members(self, place: int) -> slice:
        """Which of the stacked models are a split's."""
        return slice(place * self.settings.members, (place + 1) * self.settings.members)

    def _start_from_mixture(self, place: int) -> None:
        """Begin one split's members with the one mixture that fits its left-out scores best."""
        chosen = torch.from_numpy(self.train_rows[place])
        left_out = self.inputs.take(torch.tensor(place), chosen, self.variant)["expert_scores"]
        assert left_out is not None
        scores, mos = left_out.double().numpy(), self.mos[place, chosen].double().numpy()
        dataset = self.dataset[chosen].numpy() if self.several else None
        fits = [_mixture(scores[..., t], mos[:, t], dataset) for t in range(mos.shape[1])]
        weights, offset = (np.stack(parts, axis=1) for parts in zip(*fits, strict=True))
        least = LEAST_SHARE * np.maximum(weights.sum(axis=0), LEAST_SHARE)
        self.regressor.warm_start(
            self._members(place),
            torch.from_numpy(np.maximum(weights, least)).float(),
            torch.from_numpy(offset).float(),
        )

    def _shuffle(self, rng: np.random.Generator, length: int) -> Tensor:
        """Training rows `(M, length)`, every member in its own order."""
        orders = [
            rng.permutation(rows)[:length]
            for rows in self.train_rows
            for _ in range(self.settings.members)
        ]
        return torch.from_numpy(np.stack(orders))

    def _loss(self, rows: Tensor) -> Tensor:
        """Loss `(M,)` on the rows `(M, B)`."""
        score = self.regressor(**self.inputs.take(self.split, rows, self.variant)).score
        dataset = self.dataset[rows]
        score, mos = self.regressor.on_scale(score, dataset), self.mos[self.split, rows]
        same = None
        if self.several:
            same = (dataset.unsqueeze(2) == dataset.unsqueeze(1)).float()
        return (
            squared_error(score, mos)
            + self.settings.plcc_weight * plcc_loss(score, mos, same)
            + self.settings.rank_weight * rank_loss(score, mos, same)
        )

    def _validate(self, epoch: int, losses: Tensor) -> list[dict[str, Any]]:
        """One row of the curves for each split: its members' mean score against the MOS.

        SRCC and PLCC are means over targets and data sets where there are several.
        """
        members, dataset = self.settings.members, self.dataset.numpy()
        with torch.inference_mode():
            score = predict_rows(
                self.regressor, self.inputs, self.val_rows, members, self.variant, dataset
            ).score.unflatten(0, (len(self.seeds), members))
        rows = []
        for place, (seed, val) in enumerate(zip(self.seeds, self.val_rows, strict=True)):
            ours = score[place, :, : len(val)].mean(dim=0).numpy()
            mos = self.mos[place].numpy()[val]
            parts = list(of_each(dataset[val] if self.several else None, len(val)))
            pairs = [(mos[part, t], ours[part, t]) for part in parts for t in range(mos.shape[1])]
            rows.append(
                {
                    "model": self.variant,
                    "seed": seed,
                    "epoch": epoch,
                    "train_loss": float(losses.view(-1, members)[place].mean()),
                    "val_srcc": float(np.mean([srcc(*pair) for pair in pairs])),
                    "val_plcc": float(np.mean([plcc(*pair) for pair in pairs])),
                }
            )
        return rows


def _mixture(
    expert_scores: np.ndarray, mos: np.ndarray, dataset: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Weights `(E,)`, none below zero, of scores `(n, E)` that fit the MOS `(n,)` best.

    With several data sets each has a constant as well; they are the second result, `(D,)`.
    """
    if dataset is None:
        return nnls(expert_scores, mos)[0], np.zeros(1)
    members = (dataset[:, None] == np.unique(dataset)).astype(float)
    experts = expert_scores.shape[1]
    least = np.r_[np.zeros(experts), np.full(members.shape[1], -np.inf)]
    fitted = lsq_linear(np.hstack([expert_scores, members]), mos, (least, np.inf)).x
    return np.maximum(fitted[:experts], 0), fitted[experts:]


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the learning rate: one cosine over the run after a linear warm-up."""
    rise = min(1.0, (step + 1) / max(1.0, warmup * steps))
    return rise * 0.5 * (1 + math.cos(math.pi * step / steps))
