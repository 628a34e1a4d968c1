"""Stage 2, `fit` with the preset `tuned`: `light` on every split, and beside it a tail.

The tail trains on the training side by squared error, correlation and ranking, few epochs, ended by
the validation side. What it says of training images is no left-out score, so it cannot join the
mixture that is fitted on those: the validation side sets its share beside the frozen experts'
mixture (`ensemble.Blend`), 0 where it does not help. That side has then chosen epoch, ridge penalty
and share, so that its errors, from which the intervals come, are a little too small.
"""

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from agiqa.core.params import Params, Tuned
from agiqa.stage2.features import Scales, Side, Sides, Targets, require_images
from agiqa.stage2.light.ridge import fit_ridge
from agiqa.stage2.light.training import fit_light
from agiqa.stage2.presets import RECIPES, Recipe
from agiqa.stage2.training.epochs import Task, decayed, train
from agiqa.stage2.training.resume import Fitted
from agiqa.stage2.tuned.ensemble import (
    BATCH,
    Tail,
    TunedEnsemble,
    as_kept,
    fit_blend,
    read_tail_start,
    start_tail,
    tail_config,
    tokens_on,
)
from agiqa.stage2.tuned.inputs import TAIL, TunedInputs, TunedVisual

log = logging.getLogger(__name__)

LEAST = {"train": 60, "val": 20}  # images a split needs: of fewer the tail learns noise
RANK_WEIGHT = 0.3  # of the ranking loss, as FAST-VQA has it
SMALL = 1e-6


def fit_tuned(
    inputs: TunedInputs,
    targets: Targets,
    sides: Sides,
    params: Params,
    accelerator: Accelerator,
    ledger: Path | None = None,
) -> Fitted[TunedEnsemble]:
    """Fit `light` and train a tail on every split, in turn.

    Args:
        inputs: of all N images.
        targets: their scores, of one target and one data set.
        sides: by split seed, row numbers of train and val (a test side is not looked at).
        params: all settings.
        accelerator: of `start_processes`.
        ledger: where unfinished fits are kept; by default `agiqa.store.default_root()`.

    Raises:
        AgiqaError: too few images, scores without spread, no blocks to start from or of another
            kind, a loss that is not finite, or too little memory for one image.
    """
    require_images(targets, sides, LEAST, " of the preset tuned; take --preset light")
    start = read_tail_start(inputs)
    config = tail_config(
        start,
        int(inputs.made_by["tokens"]),
        int(inputs.made_by["patches"]),
        inputs.semantic.shape[1:],
        params.fit.gate == "softmax",
    )
    light, curves = fit_light(inputs, targets, sides, params.fit)
    tails, blends, states = [], [], []
    whole = TunedEnsemble(light, config, (), ())
    for index, (seed, side) in enumerate(sides.items()):
        scales = Scales.of(targets, side["train"])
        wanted = scales.standardise(targets.mos, targets.dataset_of)[:, 0].astype(np.float32)
        tail = start_tail(config, start, params.fit.seed)
        task = _task(tail, inputs, wanted, seed, side, params)
        best, rows, state = train(task, accelerator, ledger)
        tails.append(as_kept(best))
        curves += rows
        states.append(state)
        # The share of the tail is set on the validation side, by the scores that it will give.
        alone, val = replace(whole, light=light.only(index), tails=(tails[-1],)), side["val"]
        visual = TunedVisual(inputs.visual[val], inputs.tokens.of(val))
        frozen, tuned = alone.both(visual, inputs.semantic[val])
        blends.append(fit_blend(frozen[0], tuned[0], torch.from_numpy(wanted[val])))
        log.info("Split %d: share of the tail %.2f", seed, blends[-1].share)
    return Fitted(TunedEnsemble(light, config, tails, tuple(blends)), curves, tuple(states))


def _task(
    tail: Tail, inputs: TunedInputs, wanted: np.ndarray, split: int, side: Side, params: Params
) -> "TailTask":
    """What a tail learns of one split; `wanted` are its scores `(N,)`."""
    return TailTask(
        network=tail,
        data=inputs,
        mos=wanted,
        split=split,
        side=side,
        seed=params.fit.seed,
        settings=params.tuned,
        recipe=tuned_recipe(params.tuned),
        identity={
            "preset": TAIL,
            "settings": asdict(params.tuned),
            "gate": params.fit.gate,
            "tokens": dict(inputs.made_by),
        },
    )


def tuned_recipe(settings: Tuned) -> Recipe:
    """What a step of the tail does, as the settings say."""
    return replace(
        RECIPES["paper-fixed"],
        **{
            name: getattr(settings, name)
            for name in ("epochs", "batch_size", "lr", "weight_decay", "warmup", "ema")
        },
        flip="none",
    )


@dataclass(eq=False)
class TailTask(Task):
    """A tail on tokens and semantic vectors; the MOS in units of the training deviation."""

    model, section, batch = TAIL, "tuned", BATCH
    advice = "set tuned.micro_batch lower; finished epochs are kept"

    network: Tail
    data: TunedInputs
    settings: Tuned

    def groups(self) -> list[dict[str, Any]]:
        """The mixture at `lr`; the last block, norm and line at `block_lr`, earlier ones lower."""
        recipe = self.recipe
        tail, share = self.network, self.settings.block_lr / recipe.lr
        head = [*tail.head.experts.parameters(), *tail.head.gate.parameters()]
        groups = decayed([*head, *tail.head.mixed.parameters()], recipe)
        groups += decayed([*tail.norm.parameters(), *tail.head.line.parameters()], recipe, share)
        for block in reversed(tail.blocks):
            groups += decayed(block.parameters(), recipe, share)
            share *= self.settings.layer_decay
        return groups

    def start(self, device: torch.device) -> None:
        """Fit the head's line to the frozen states: a ridge, its penalty set on validation."""
        head, rows = self.network.head, (self.side["train"], self.side["val"])
        self.network.eval()
        train, val = (self._pooled(part, device) for part in rows)
        centre, scale = train.mean(axis=0), train.std(axis=0) + SMALL
        mos, val_mos = (self.mos[part][:, None].astype(float) for part in rows)
        ridge = fit_ridge((train - centre) / scale, mos, (val - centre) / scale, val_mos)
        semantic = self.data.semantic[rows[0]]
        with torch.no_grad():
            for own, new in (
                (head.centre, centre),
                (head.scale, scale),
                (head.semantic_centre, semantic.mean(axis=0)),
                (head.semantic_scale, semantic.std(axis=0) + SMALL),
                (head.line.weight, ridge.weights.T),
                (head.line.bias, ridge.bias),
            ):
                own.copy_(torch.from_numpy(np.ascontiguousarray(new, dtype=np.float32)))

    def inputs(
        self, rows: np.ndarray, device: torch.device, draws: np.ndarray | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens and semantic vectors of the images."""
        tokens = tokens_on(self.data.tokens[rows], self.network.config, device)
        return tokens, torch.from_numpy(self.data.semantic[rows]).to(device)

    def loss(self, output: Tensor, rows: np.ndarray) -> Tensor:
        """Squared error, correlation and ranking of the images, times their number."""
        return len(rows) * combined_loss(output, torch.from_numpy(self.mos[rows]).to(output.device))

    def _pooled(self, rows: np.ndarray, device: torch.device) -> np.ndarray:
        """Pooled states of the images by the blocks as they are."""
        parts = []
        with torch.inference_mode():
            for start in range(0, len(rows), BATCH):
                states, _ = self.inputs(rows[start : start + BATCH], device)
                parts.append(self.network.pooled(states).cpu().numpy())
        return np.concatenate(parts)


def combined_loss(score: Tensor, mos: Tensor) -> Tensor:
    """Squared error, (1 - PLCC) / 2, and the pairs in the wrong order by how far they are apart.

    The last two as FAST-VQA (Wu et al., ECCV 2022) has them, over the images of a step that a
    process has at a time.

    Args:
        score: `(B,)`, in units of the training deviation.
        mos: `(B,)`, in the same.
    """
    off, wanted = score - score.mean(), mos - mos.mean()
    plcc = (off * wanted).sum() / (off.norm() * wanted.norm() + SMALL)
    apart, order = score[:, None] - score, torch.sign(mos[:, None] - mos)
    ranking = torch.relu(-apart * order).mean()
    loss: Tensor = (score - mos).square().mean() + (1 - plcc) / 2 + RANK_WEIGHT * ranking
    return loss
