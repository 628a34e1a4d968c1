"""Stage 2, `fit`: ten splits times a few members of the light regressor, trained as one.

For every split the projections, the ridge baselines and three regressors (visual only, semantic
only, mixture of experts on both) see the training side; the validation side alone picks penalties
and epochs; the test side is not touched here.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from agiqa.errors import AgiqaError
from agiqa.features import Features
from agiqa.metrics import plcc, srcc
from agiqa.model.ensemble import (
    VARIANTS,
    Ensemble,
    Inputs,
    SplitModel,
    predict_rows,
)
from agiqa.model.kernel import fit_kernel_ridge
from agiqa.model.losses import plcc_loss, rank_loss, squared_error
from agiqa.model.moe import MixtureOfExperts
from agiqa.model.projection import fit_projection, moments
from agiqa.model.ridge import Gram, Ridge, decompose, fit_ridge
from agiqa.params import Fit
from agiqa.progress import track

log = logging.getLogger(__name__)

SELECT_EVERY = 2  # epochs between looks at the validation side
LEAST_SHARE = 0.02  # of the starting mixture for each expert, so that its gate can move
LEAST = {"train": 8, "val": 2}  # images a split needs

Sides = Mapping[int, Mapping[str, np.ndarray]]  # by split seed: row numbers of train and val


def fit(
    features: Features, mos: np.ndarray, sides: Sides, settings: Fit
) -> tuple[Ensemble, list[dict[str, Any]]]:
    """Train on every split.

    Args:
        features: of all N images.
        mos: scores `(N,)`.
        sides: by split seed, row numbers of train and val (a test side is not looked at).
        settings: `params.yaml`, section fit.

    Returns:
        The fitted ensemble, and the curves: model, seed, epoch, train_loss, val_srcc, val_plcc.

    Raises:
        AgiqaError: too few images to form a batch, or scores without spread.
    """
    for seed, side in sides.items():
        for name, least in LEAST.items():
            if len(side[name]) < least:
                raise AgiqaError(
                    f"Split {seed} has {len(side[name])} {name} images; fit needs at least {least}."
                )
        if float(np.ptp(mos[side["train"]])) == 0:
            raise AgiqaError(f"All training images of split {seed} have the same score.")
    fitted = [
        _fit_split(features, mos, seed, side, settings)
        for seed, side in track(list(sides.items()), "Projections and ridges")
    ]
    splits = tuple(split for split, _ in fitted)
    inputs = _inputs([known for _, known in fitted], len(mos))
    curves: list[dict[str, Any]] = []
    regressors = {}
    for variant in VARIANTS:
        run = Run(variant, inputs, splits, sides, mos, settings)
        curves += run.train()
        regressors[variant] = run.regressor
    return Ensemble(splits, regressors, settings.members), curves


@dataclass(frozen=True)
class _Known:
    """What the regressors may see of one split: its training and validation side."""

    rows: np.ndarray  # (m,) of the table
    components: list[np.ndarray]  # (m, k) of each expert's vector
    opinions: np.ndarray  # (m, E); those of training images are left-out ones


def _inputs(splits: Sequence[_Known], images: int) -> Inputs:
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


def _fit_split(
    features: Features, mos: np.ndarray, seed: int, side: Mapping[str, np.ndarray], settings: Fit
) -> tuple[SplitModel, _Known]:
    """Projections, ridges and kernel ridges of one split."""
    train, val = side["train"], side["val"]
    rows, count = np.concatenate([train, val]), len(train)
    vectors = [features.visual, *np.moveaxis(features.semantic, 1, 0)]
    scales = [moments(each[train]) for each in vectors]
    standardised = [
        (each[rows] - mean) / scale for each, (mean, scale) in zip(vectors, scales, strict=True)
    ]
    ridges, gram = _fit_ridges(standardised, mos[train], mos[val])
    projections = [
        fit_projection(each[:count], mean, scale, k, inner)
        for each, (mean, scale), k, inner in zip(
            standardised,
            scales,
            [settings.components] + [settings.semantic_components] * (len(vectors) - 1),
            [gram] + [None] * (len(vectors) - 1),
            strict=True,
        )
    ]
    components = [p.project(each) for p, each in zip(projections, standardised, strict=True)]
    mean, sd = float(mos[train].mean()), float(mos[train].std())
    target = (mos[rows] - mean) / sd
    kernels, opinions = [], []
    for each in components:
        kernel, left_out = fit_kernel_ridge(each[:count], target[:count])
        kernels.append(kernel)
        opinions.append(np.concatenate([left_out, kernel.predict(each[count:])]))
    split = SplitModel(
        seed=seed,
        visual=projections[0],
        semantic=tuple(projections[1:]),
        kernels=tuple(kernels),
        ridges=ridges,
        mos_mean=mean,
        mos_sd=sd,
    )
    return split, _Known(rows, components, np.stack(opinions, axis=1))


def _fit_ridges(
    standardised: Sequence[np.ndarray], mos: np.ndarray, val_mos: np.ndarray
) -> tuple[dict[str, Ridge], Gram]:
    """The baselines on standardised vectors of training and validation side, in this order.

    Returns:
        The ridges by RIDGES, and the visual inner products, which serve the projection too.
    """
    count = len(mos)
    train, val = [each[:count] for each in standardised], [each[count:] for each in standardised]
    inner = [each @ each.T for each in train]
    seen, said = inner[0], np.sum(inner[1:], axis=0)
    gram = decompose(seen)
    ridges = {
        "ridge": fit_ridge(train, decompose(seen + said), mos, val, val_mos),
        "ridge_visual": fit_ridge(train[:1], gram, mos, val[:1], val_mos),
        "ridge_semantic": fit_ridge(train[1:], decompose(said), mos, val[1:], val_mos),
    }
    return ridges, gram


class Run:
    """One variant, all splits and members at once; each split keeps its best epoch's weights."""

    def __init__(
        self,
        variant: str,
        inputs: Inputs,
        splits: Sequence[SplitModel],
        sides: Sides,
        mos: np.ndarray,
        settings: Fit,
    ) -> None:
        torch.manual_seed(settings.seed)
        self.variant, self.inputs, self.settings = variant, inputs, settings
        self.seeds = list(sides)
        self.train_rows = [sides[seed]["train"] for seed in self.seeds]
        self.val_rows = [sides[seed]["val"] for seed in self.seeds]
        scaled = [(mos - split.mos_mean) / split.mos_sd for split in splits]
        self.mos = torch.from_numpy(np.stack(scaled).astype(np.float32))  # (S, N)
        self.regressor = MixtureOfExperts(
            models=len(splits) * settings.members,
            visual=inputs.visual.shape[-1] if variant != "semantic" else 0,
            semantic=inputs.semantic.shape[-1],
            prompts=inputs.semantic.shape[2] if variant != "visual" else 0,
            hidden=settings.hidden,
            gate=settings.gate,
            dropout=settings.dropout,
            noise=settings.feature_noise,
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
        rows = torch.from_numpy(self.train_rows[place])
        opinions = self.inputs.take(torch.tensor(place), rows, self.variant)["opinions"]
        assert opinions is not None
        weights, _ = nnls(opinions.double().numpy(), self.mos[place, rows].double().numpy())
        weights = np.maximum(weights, LEAST_SHARE * max(weights.sum(), LEAST_SHARE))
        members = self.settings.members
        own = slice(place * members, (place + 1) * members)
        self.regressor.warm_start(own, torch.from_numpy(weights).float())

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
        mos = self.mos[self.split, rows]
        return (
            squared_error(score, mos)
            + self.settings.plcc_weight * plcc_loss(score, mos)
            + self.settings.rank_weight * rank_loss(score, mos)
        )

    def _validate(self, epoch: int, losses: Tensor) -> list[dict[str, Any]]:
        """One row of the curves for each split: its members' mean score against the MOS."""
        members = self.settings.members
        prediction = predict_rows(
            self.regressor, self.inputs, self.val_rows, members, self.variant
        ).score.unflatten(0, (len(self.seeds), members))
        rows = []
        for place, seed in enumerate(self.seeds):
            val = self.val_rows[place]
            ours = prediction[place, :, : len(val)].mean(dim=0).numpy()
            truth = self.mos[place].numpy()[val]
            rows.append(
                {
                    "model": self.variant,
                    "seed": seed,
                    "epoch": epoch,
                    "train_loss": float(losses.view(-1, members)[place].mean()),
                    "val_srcc": srcc(truth, ours),
                    "val_plcc": plcc(truth, ours),
                }
            )
        return rows


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the learning rate: one cosine over the run after a linear warm-up."""
    rise = min(1.0, (step + 1) / max(1.0, warmup * steps))
    return rise * 0.5 * (1 + math.cos(math.pi * step / steps))
