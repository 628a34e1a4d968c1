"""Stage 2, `fit`: ten splits times a few members of the light regressor, trained as one.

For every split the projections, the ridge baselines and three regressors (visual only, semantic
only, mixture of experts on both) see the training side; the validation side alone picks penalties
and epochs; the test side is not touched here.
"""

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agiqa.errors import AgiqaError
from agiqa.features import Features
from agiqa.metrics import plcc, srcc
from agiqa.model.ensemble import (
    RIDGES,
    VARIANTS,
    Ensemble,
    Inputs,
    SplitModel,
    predict_rows,
    project,
    ridge_inputs,
)
from agiqa.model.losses import plcc_loss, rank_loss, squared_error
from agiqa.model.moe import MixtureOfExperts
from agiqa.model.projection import FLOOR, fit_projection
from agiqa.model.ridge import decompose, fit_ridge
from agiqa.params import Fit
from agiqa.progress import track

log = logging.getLogger(__name__)

SELECT_EVERY = 2  # epochs between looks at the validation side
ALPHAS = (10.0, 30.0, 100.0, 300.0, 1e3, 3e3)  # penalties of the ridge start
SEMANTIC_PENALTIES = (1.0, 5.0, 25.0, 1e6)  # times as much on semantic components; 1e6: none used
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
    splits = tuple(
        _fit_split(features, mos, seed, side, settings)
        for seed, side in track(list(sides.items()), "Projections and ridge")
    )
    inputs = project(splits, features.visual, features.semantic)
    curves: list[dict[str, Any]] = []
    regressors = {}
    for variant in VARIANTS:
        run = Run(variant, inputs, splits, sides, mos, settings)
        curves += run.train()
        regressors[variant] = run.regressor
    return Ensemble(splits, regressors, settings.members), curves


def _fit_split(
    features: Features, mos: np.ndarray, seed: int, side: Mapping[str, np.ndarray], settings: Fit
) -> SplitModel:
    """Projections and ridges of one split; the visual inner products serve both."""
    train, val = side["train"], side["val"]
    seen = features.visual[train]
    standardised = (seen - seen.mean(axis=0)) / (seen.std(axis=0) + FLOOR)
    seen_inner = standardised @ standardised.T
    gram = decompose(seen_inner)
    semantic = tuple(
        fit_projection(features.semantic[train, p], None, settings.semantic_components, seed)
        for p in range(features.semantic.shape[1])
    )
    split = SplitModel(
        seed=seed,
        visual=fit_projection(seen, gram, settings.components, seed),
        semantic=semantic,
        ridges={},
        mos_mean=float(mos[train].mean()),
        mos_sd=float(mos[train].std()),
    )
    ours = ridge_inputs(split, seen, features.semantic[train])
    held = ridge_inputs(split, features.visual[val], features.semantic[val])
    said_inner = ours["ridge_semantic"] @ ours["ridge_semantic"].T
    grams = {
        "ridge": decompose(seen_inner + said_inner),
        "ridge_visual": gram,
        "ridge_semantic": decompose(said_inner),
    }
    ridges = {
        name: fit_ridge(ours[name], grams[name], mos[train], held[name], mos[val])
        for name in RIDGES
    }
    return replace(split, ridges=ridges)


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
            self._start_from_ridge(place)

    def train(self) -> list[dict[str, Any]]:
        """Train; returns the learning curves."""
        settings, regressor = self.settings, self.regressor
        optimiser = torch.optim.AdamW(
            regressor.groups(settings.lr, settings.linear_lr, settings.weight_decay)
        )
        rates = [float(group["lr"]) for group in optimiser.param_groups]
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
                for group, rate in zip(optimiser.param_groups, rates, strict=True):
                    group["lr"] = rate * share
                with torch.set_grad_enabled(epoch > 0):
                    loss = self._loss(orders[:, step * size : (step + 1) * size])
                if epoch > 0:  # epoch 0 looks at the ridge itself
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

    def _start_from_ridge(self, place: int) -> None:
        """Begin one split's members as the ridge on the components that validates best.

        The semantic vectors have a penalty of their own: where they carry less than the visual
        feature, one penalty for both lets their noise in.
        """
        split = torch.tensor([[place]])
        found = {}
        for side, rows in (("train", self.train_rows), ("val", self.val_rows)):
            index = torch.from_numpy(rows[place])[None]
            inputs = self.inputs.take(split, index, self.variant)
            vectors = self.regressor.vectors(inputs["visual"], inputs["semantic"])
            found[side] = torch.cat(vectors, dim=-1)[0].double()
        mos = self.mos[place].double()
        train, val = mos[self.train_rows[place]], mos[self.val_rows[place]].numpy()
        moments = found["train"].T @ found["train"]
        target = found["train"].T @ train
        widths = self.regressor.widths
        both = len(widths) > 1 and self.variant == "moe"
        said = torch.arange(len(moments)) >= (widths[0] if both else len(moments))
        best = -math.inf
        for alpha, more in itertools.product(ALPHAS, SEMANTIC_PENALTIES if both else (1.0,)):
            penalties = torch.where(said, alpha * more, alpha).to(moments.dtype)
            weights = torch.linalg.solve(moments + penalties.diag(), target)
            score = (found["val"] @ weights).numpy()
            value = srcc(val, score) + plcc(val, score)
            if value > best:
                best = value
                members = self.settings.members
                own = slice(place * members, (place + 1) * members)
                self.regressor.warm_start(own, weights.float())

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
