"""Stage 2, `fit` with the presets `paper` and `paper-fixed`: the whole network, split by split.

What is done is the recipe's (`presets`), how it is done is ours: pixels come from the cache; every
random draw follows from the seed, the split and the epoch, so that a fit stopped at an epoch's end
goes on to the bit (`resume`); several GPUs (`accelerate launch`) share each step's images, and
the result does not depend on how many they are, dropout apart (`steps`). The validation side
picks the epoch; the test side is not touched here.
"""

import hashlib
import importlib.metadata
import json
import logging
import math
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import is_bf16_available
from torch import nn

from agiqa.core.errors import AgiqaError
from agiqa.core.memory import ran_out
from agiqa.core.params import Params
from agiqa.core.progress import track
from agiqa.data.metrics import plcc, srcc
from agiqa.stage2.paper.augmentation import draw
from agiqa.stage2.paper.ensemble import PaperEnsemble
from agiqa.stage2.paper.inputs import PaperInputs
from agiqa.stage2.paper.network import PaperConfig, PaperRegressor, load_vit
from agiqa.stage2.paper.optimisation import rate
from agiqa.stage2.paper.resume import FitState
from agiqa.stage2.paper.steps import Steps
from agiqa.stage2.presets import Recipe, recipe
from agiqa.store.fingerprint import plain

log = logging.getLogger(__name__)

MODEL = "moe"  # the network's name in curves, predictions and metrics
NONE = "none"  # a backbone that starts from random weights
LEAST_VAL = 2  # images a split needs on its validation side
PATIENCE = timedelta(hours=2)  # of the other processes, while the first decodes the images

Side = Mapping[str, np.ndarray]  # row numbers of train and val


class PaperFit(NamedTuple):
    """What a fit yields, and the states that may be forgotten once it is written."""

    ensemble: PaperEnsemble
    curves: list[dict[str, Any]]  # model, seed, epoch, train_loss, val_srcc, val_plcc
    states: tuple[FitState, ...]


def start_processes() -> Accelerator:
    """Join the processes that `accelerate launch` or torchrun started; without them, be alone."""
    return Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)])


def fit_paper(
    inputs: PaperInputs,
    mos: np.ndarray,
    sides: Mapping[int, Side],
    params: Params,
    accelerator: Accelerator,
    ledger: Path | None = None,
) -> PaperFit:
    """Train one network for each split, in turn.

    Args:
        inputs: of all N images.
        mos: scores `(N,)`.
        sides: by split seed, row numbers of train and val (a test side is not looked at).
        params: all settings; fit.preset is `paper` or `paper-fixed`.
        accelerator: of `start_processes`.
        ledger: where unfinished fits are kept, seen by all processes; by default
            `agiqa.store.default_root()`.

    Raises:
        AgiqaError: too few images for a batch, scores without spread, weights for the backbone
            that do not fit it, a loss that is not finite, or too little memory for one image.
    """
    chosen = recipe(params)
    _check(mos, sides, chosen)
    config = PaperConfig(semantic_width=inputs.semantic.shape[-1], **asdict(params.paper.network))
    curves: list[dict[str, Any]] = []
    weights, states = [], []
    for seed, side in sides.items():
        training = Training(config, inputs, mos, seed, side, chosen, params, accelerator)
        state = FitState(training.identity, ledger)
        with state.writer() if accelerator.is_main_process else nullcontext():
            record = training.run(state)
        accelerator.wait_for_everyone()
        curves += record["curves"]
        weights.append(state.best(record))
        states.append(state)
    return PaperFit(PaperEnsemble(config, weights), curves, tuple(states))


class Training:
    """One split's network, from epoch to epoch."""

    def __init__(
        self,
        config: PaperConfig,
        inputs: PaperInputs,
        mos: np.ndarray,
        seed: int,
        side: Side,
        chosen: Recipe,
        params: Params,
        accelerator: Accelerator,
    ) -> None:
        self.accelerator, self.recipe, self.mos = accelerator, chosen, mos
        self.seed, self.fit_seed = seed, params.fit.seed
        self.train, self.val = side["train"], _whole(side["val"], chosen)
        network = _start(config, params)
        bf16 = _in_bf16(params.paper.precision, accelerator)
        self.identity = {
            "recipe": asdict(chosen),
            "network": plain(asdict(config)),
            "seed": self.fit_seed,
            "split": seed,
            "bf16": bf16,
            "tf32": False,
            "initial_sha256": _digest_weights(network),
            "data_sha256": _digest_data(inputs, mos, side),
            "stores": plain(inputs.stores),
            "versions": {name: importlib.metadata.version(name) for name in ("agiqa", "torch")},
        }
        share = -(-chosen.batch_size // accelerator.num_processes)
        at_a_time = min(share, params.paper.micro_batch or share)
        self.steps = Steps(network, inputs, mos, chosen, bf16, at_a_time, accelerator)

    def run(self, state: FitState) -> dict[str, Any]:
        """Train to the last epoch, from where `state` stands; returns the last record."""
        record: dict[str, Any] = {"epoch": 0, "best_epoch": 0, "best": -math.inf, "curves": []}
        saved = state.load()
        if saved is not None:
            record = saved.record
            self._say("Split %d goes on after epoch %d.", self.seed, record["epoch"])
            if saved.tensors:  # none after the last epoch
                self.steps.restore(saved.tensors, record["updates"])
                self.steps.at_a_time = min(self.steps.at_a_time, record["at_a_time"])
        last = self.recipe.epochs
        for epoch in range(record["epoch"] + 1, last + 1):
            record = self._record(record, self._epoch(epoch))
            if self.accelerator.is_main_process:
                tensors = self.steps.state() if epoch < last else {}
                best = self.steps.kept() if record["best_epoch"] == epoch else None
                state.save(tensors, record, best)
        return record

    def _epoch(self, epoch: int) -> dict[str, Any]:
        """Train and validate; a row of the curves."""
        started = time.monotonic()
        try:
            loss = self._train(epoch)
            score, mos = self.steps.scores(self.val), self.mos[self.val]
        except RuntimeError as error:  # beyond what halving can do: the optimiser itself
            if not ran_out(error):
                raise
            raise AgiqaError(
                f"Memory ran out in epoch {epoch}; finished epochs are kept: start again with "
                f"paper.micro_batch={max(1, self.steps.at_a_time // 2)}."
            ) from error
        ends = {"train_loss": loss, "val_srcc": srcc(mos, score), "val_plcc": plcc(mos, score)}
        self._say(
            "Split %d, epoch %d of %d: loss %.4f, validation SRCC %.4f, PLCC %.4f, %.1f s",
            *(self.seed, epoch, self.recipe.epochs, *ends.values(), time.monotonic() - started),
        )
        return {"model": MODEL, "seed": self.seed, "epoch": epoch, **ends}

    def _train(self, epoch: int) -> float:
        """One pass over the training side; the mean loss of its steps."""
        rng = self._rng(epoch)
        order, size = rng.permutation(self.train), self.recipe.batch_size
        dropped = self.recipe.drop_last_train
        steps = len(order) // size if dropped else -(-len(order) // size)
        total = torch.zeros((), device=self.accelerator.device)
        for step in self._shown(range(steps), f"Epoch {epoch}"):
            rows = order[step * size : (step + 1) * size]
            now = rate((epoch - 1) * steps + step, self.recipe.epochs * steps, self.recipe)
            total += self.steps.step(now, rows, draw(len(rows), self.recipe, rng))
        loss = float(self.accelerator.reduce(total, "sum")) / steps
        if not math.isfinite(loss):
            raise AgiqaError(
                f"The loss of epoch {epoch} is not finite: lower paper.lr, which is "
                f"{self.recipe.lr:g}. Finished epochs are kept."
            )
        return loss

    def _record(self, before: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
        """The record after an epoch; the first is best until one validates better."""
        value = row["val_srcc"] + row["val_plcc"]
        value = value if math.isfinite(value) else -math.inf  # all scores the same
        better = before["best_epoch"] == 0 or value > before["best"]
        average = self.steps.average
        return {
            "epoch": row["epoch"],
            "best_epoch": row["epoch"] if better else before["best_epoch"],
            "best": value if better else before["best"],
            "at_a_time": self.steps.at_a_time,
            "updates": average.updates if average is not None else 0,
            "curves": [*before["curves"], row],
        }

    def _rng(self, epoch: int) -> np.random.Generator:
        """The epoch's random draws; torch's, for dropout, follow from them."""
        text = f"{self.fit_seed} {self.seed} {epoch}"
        rng = np.random.default_rng(int(hashlib.sha256(text.encode()).hexdigest(), 16))
        torch.manual_seed(int(rng.integers(2**62)) + self.accelerator.process_index)
        return rng

    def _shown(self, steps: range, what: str) -> Iterable[int]:
        if not self.accelerator.is_main_process:
            return steps
        return track(steps, what, unit=self.recipe.batch_size)

    def _say(self, message: str, *values: object) -> None:
        if self.accelerator.is_main_process:
            log.info(message, *values)


def _check(mos: np.ndarray, sides: Mapping[int, Side], chosen: Recipe) -> None:
    least = {"train": chosen.batch_size if chosen.drop_last_train else 1, "val": LEAST_VAL}
    for seed, side in sides.items():
        for name, count in least.items():
            if len(side[name]) < count:
                raise AgiqaError(
                    f"Split {seed} has {len(side[name])} {name} images; fit needs at least {count} "
                    f"with batches of {chosen.batch_size}."
                )
        if float(np.ptp(mos[side["train"]])) == 0:
            raise AgiqaError(f"All training images of split {seed} have the same score.")


def _whole(val: np.ndarray, chosen: Recipe) -> np.ndarray:
    """The validation side, without the images that do not fill a batch if the recipe says so."""
    count = len(val) // chosen.batch_size * chosen.batch_size
    return val[:count] if chosen.drop_last_val and count else val


def _start(config: PaperConfig, params: Params) -> PaperRegressor:
    """The network as every split starts it."""
    torch.manual_seed(params.fit.seed)
    network = PaperRegressor(config)
    if params.paper.backbone != NONE:
        load_vit(network, params.paper.backbone)
    network.gradient_checkpointing = params.paper.gradient_checkpointing
    return network


def _in_bf16(precision: str, accelerator: Accelerator) -> bool:
    if precision != "auto":
        return precision == "bfloat16"
    return accelerator.device.type != "cpu" and bool(is_bf16_available(ignore_tpu=True))


def _digest_weights(network: nn.Module) -> str:
    sha = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.contiguous().numpy().data)
    return sha.hexdigest()


def _digest_data(inputs: PaperInputs, mos: np.ndarray, side: Side) -> str:
    """Images by id, their scores and semantic vectors, of train and val in their order."""
    sha = hashlib.sha256()
    for name in ("train", "val"):
        rows = side[name]
        sha.update(json.dumps([name, *(inputs.image_ids[row] for row in rows)]).encode())
        sha.update(mos[rows].data)
        sha.update(inputs.semantic[rows].data)
    return sha.hexdigest()
