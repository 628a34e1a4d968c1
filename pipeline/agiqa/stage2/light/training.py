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
from collections.abc import Mapping, Sequence
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
from agiqa.stage2.light.closed_forms import Known, fit_split
from agiqa.stage2.light.ensemble import (
    VARIANTS,
    Ensemble,
    Inputs,
    SplitModel,
    predict_rows,
)
from agiqa.stage2.light.losses import plcc_loss, rank_loss, squared_error
from agiqa.stage2.light.moe import MixtureOfExperts
from agiqa.stage2.targets import Truth

log = logging.getLogger(__name__)

SELECT_EVERY = 2  # epochs between looks at the validation side
LEAST_SHARE = 0.02  # of the starting mixture for each expert, so that its gate can move
LEAST = {"train": 8, "val": 2}  # images a split needs

Sides = Mapping[int, Mapping[str, np.ndarray]]  # by split seed: row numbers of train and val


def fit(
    features: Features, truth: Truth, sides: Sides, settings: Fit
) -> tuple[Ensemble, list[dict[str, Any]]]:
    """Train on every split.

    Args:
        features: of all N images.
        truth: their scores.
        sides: by split seed, row numbers of train and val (a test side is not looked at).
        settings: `params.yaml`, section fit.

    Returns:
        The fitted ensemble, and the curves: model, seed, epoch, train_loss, val_srcc, val_plcc.

    Raises:
        AgiqaError: too few images to form a batch, or scores without spread.
    """
    for seed, side in sides.items():
        _require_enough(truth, seed, side)
    largest = max(len(side["train"]) for side in sides.values())
    if 0 < settings.anchors < largest:
        log.info(
            "Kernels and projections of %d training images stand on %d of them (fit.anchors).",
            largest,
            settings.anchors,
        )
    fitted = [
        fit_split(features, truth, seed, side, settings)
        for seed, side in track(list(sides.items()), "Projections and ridges")
    ]
    splits = tuple(split for split, _ in fitted)
    inputs = _inputs([known for _, known in fitted], len(truth.mos))
    curves: list[dict[str, Any]] = []
    regressors = {}
    for variant in VARIANTS:
        run = Run(variant, inputs, splits, sides, truth, settings)
        curves += run.train()
        regressors[variant] = run.regressor
    return Ensemble(splits, regressors, settings.members), curves


def _require_enough(truth: Truth, seed: int, side: Mapping[str, np.ndarray]) -> None:
    """Refuse a split with too few images of some data set, or without spread in their scores."""
    for place, dataset in enumerate(truth.datasets):
        where = f"Split {seed}" + (f" of '{dataset}'" if len(truth.datasets) > 1 else "")
        for name, least in LEAST.items():
            count = int((truth.of[side[name]] == place).sum())
            if count < least:
                raise AgiqaError(f"{where} has {count} {name} images; fit needs at least {least}.")
        train = side["train"][truth.of[side["train"]] == place]
        for column, target in enumerate(truth.targets):
            if float(np.ptp(truth.mos[train, column])) == 0:
                raise AgiqaError(
                    f"All training images of {where[0].lower()}{where[1:]} have the same score "
                    f"'{target}'."
                )


def _inputs(splits: Sequence[Known], images: int) -> Inputs:
    """Inputs of all N images; zero where a split's test side would stand."""

    def place(parts: Sequence[np.ndarray]) -> Tensor:
        whole = np.zeros((len(splits), images, *parts[0].shape[1:]), dtype=np.float32)
        for row, (split, part) in enumerate(zip(splits, parts, strict=True)):
            whole[row, split.rows] = part
        return torch.from_numpy(whole)

    return Inputs(
        visual=place([split.components[0] for split in splits]),
        semantic=place([np.stack(split.components[1:], axis=1) for split in splits]),
        opinions=place([split.opinions for split in splits]),
    )


class Run:
    """One variant, all splits and members at once; each split keeps its best epoch's weights."""

    def __init__(
        self,
        variant: str,
        inputs: Inputs,
        splits: Sequence[SplitModel],
        sides: Sides,
        truth: Truth,
        settings: Fit,
    ) -> None:
        torch.manual_seed(settings.seed)
        self.variant, self.inputs, self.settings = variant, inputs, settings
        self.seeds = list(sides)
        self.train_rows = [sides[seed]["train"] for seed in self.seeds]
        self.val_rows = [sides[seed]["val"] for seed in self.seeds]
        scaled = [split.scales.standardise(truth.mos, truth.of) for split in splits]
        self.mos = torch.from_numpy(np.stack(scaled).astype(np.float32))  # (S, N, T)
        self.dataset, self.several = torch.from_numpy(truth.of), len(truth.datasets) > 1
        self.regressor = MixtureOfExperts(
            models=len(splits) * settings.members,
            visual=inputs.visual.shape[-1] if variant != "semantic" else 0,
            semantic=inputs.semantic.shape[-1],
            prompts=inputs.semantic.shape[2] if variant != "visual" else 0,
            hidden=settings.hidden,
            gate=settings.gate,
            dropout=settings.dropout,
            noise=settings.feature_noise,
            targets=len(truth.targets),
            datasets=len(truth.datasets),
        )
        self.split = torch.arange(len(splits)).repeat_interleave(settings.members)[:, None]
        for place in range(len(splits)):
            self._start_from_mixture(place)

    def train(self) -> list[dict[str, Any]]:
        """Train; returns the learning curves."""
        settings, regressor = self.settings, self.regressor
        optimiser = torch.optim.AdamW(
            regressor.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
        )
        fewest = min(map(len, self.train_rows))
        size = min(settings.batch_size, fewest)
        per_epoch = fewest // size
        steps = settings.epochs * per_epoch
        rng = np.random.default_rng(settings.seed)
        best = np.full(len(self.seeds), -math.inf)
        kept = {name: weight.detach().clone() for name, weight in regressor.named_parameters()}
        curves: list[dict[str, Any]] = []
        for epoch in track(range(settings.epochs + 1), f"Fit {self.variant}"):
            regressor.train()
            orders = self._shuffle(rng, per_epoch * size)
            total = torch.zeros(len(orders))
            for step in range(per_epoch):
                share = _schedule(max(0, epoch - 1) * per_epoch + step, steps, settings.warmup)
                for group in optimiser.param_groups:
                    group["lr"] = settings.lr * share
                with torch.set_grad_enabled(epoch > 0):
                    loss = self._loss(orders[:, step * size : (step + 1) * size])
                if epoch > 0:  # epoch 0 looks at the start itself
                    optimiser.zero_grad()
                    loss.sum().backward()
                    optimiser.step()
                total += loss.detach()
            if epoch % SELECT_EVERY == 0 or epoch == settings.epochs:
                rows = self._validate(epoch, total / per_epoch)
                curves += rows
                for place, row in enumerate(rows):
                    value = row["val_srcc"] + row["val_plcc"]
                    if value > best[place]:
                        best[place] = value
                        own = slice(place * settings.members, (place + 1) * settings.members)
                        for name, weight in regressor.named_parameters():
                            kept[name][own] = weight.detach()[own]
        regressor.load_state_dict(kept)
        regressor.eval()
        return curves

    def _start_from_mixture(self, place: int) -> None:
        """Begin one split's members with the one mixture that fits its left-out opinions best."""
        rows = self.train_rows[place]
        chosen = torch.from_numpy(rows)
        opinions = self.inputs.take(torch.tensor(place), chosen, self.variant)["opinions"]
        assert opinions is not None
        said, wanted = opinions.double().numpy(), self.mos[place, chosen].double().numpy()
        among = self.dataset[chosen].numpy() if self.several else None
        found = [_mixture(said[..., t], wanted[:, t], among) for t in range(wanted.shape[1])]
        weights = np.stack([each for each, _ in found], axis=1)
        least = LEAST_SHARE * np.maximum(weights.sum(axis=0), LEAST_SHARE)
        members = self.settings.members
        own = slice(place * members, (place + 1) * members)
        self.regressor.warm_start(
            own,
            torch.from_numpy(np.maximum(weights, least)).float(),
            torch.from_numpy(np.stack([each for _, each in found], axis=1)).float(),
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
        members = self.settings.members
        prediction = predict_rows(
            self.regressor, self.inputs, self.val_rows, members, self.variant, self.dataset.numpy()
        ).score.unflatten(0, (len(self.seeds), members))
        rows = []
        for place, seed in enumerate(self.seeds):
            val = self.val_rows[place]
            ours = prediction[place, :, : len(val)].mean(dim=0).numpy()
            truth = self.mos[place].numpy()[val]
            parts = list(of_each(self.dataset.numpy()[val] if self.several else None, len(val)))
            pairs = [(truth[p, t], ours[p, t]) for p in parts for t in range(truth.shape[1])]
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
    opinions: np.ndarray, mos: np.ndarray, dataset: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Weights `(E,)`, none below zero, of opinions `(n, E)` that fit the MOS `(n,)` best.

    With several data sets each has a constant as well; they are the second result, `(D,)`.
    """
    if dataset is None:
        return nnls(opinions, mos)[0], np.zeros(1)
    members = (dataset[:, None] == np.unique(dataset)).astype(float)
    experts = opinions.shape[1]
    least = np.r_[np.zeros(experts), np.full(members.shape[1], -np.inf)]
    found = lsq_linear(np.hstack([opinions, members]), mos, (least, np.inf)).x
    return np.maximum(found[:experts], 0), found[experts:]


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the learning rate: one cosine over the run after a linear warm-up."""
    rise = min(1.0, (step + 1) / max(1.0, warmup * steps))
    return rise * 0.5 * (1 + math.cos(math.pi * step / steps))
