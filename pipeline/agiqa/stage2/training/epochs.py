"""A network's training from epoch to epoch: what the presets `paper` and `tuned` share.

Every random draw follows from the seed, the split and the epoch, so that a fit stopped at an
epoch's end goes on to the bit (`resume`); several GPUs (`accelerate launch`) share each step's
images (`steps`). The validation side picks the epoch; the test side is not touched.
"""

import hashlib
import importlib.metadata
import json
import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import is_bf16_available
from torch import nn

from agiqa.core.errors import AgiqaError
from agiqa.core.memory import ran_out
from agiqa.core.params import Tuned
from agiqa.core.progress import track
from agiqa.data.metrics import plcc, srcc
from agiqa.stage2.targets import Side
from agiqa.stage2.training.optimisation import rate
from agiqa.stage2.training.resume import FitState
from agiqa.stage2.training.steps import Steps, Task

log = logging.getLogger(__name__)

JOINING = timedelta(hours=2)  # of the other processes, while the first decodes the images


def start_processes() -> Accelerator:
    """Join the processes that `accelerate launch` or torchrun started; without them, be alone."""
    return Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=JOINING)])


class Training:
    """One split's network, from epoch to epoch."""

    def __init__(self, steps: Steps) -> None:
        self.steps, self.task, self.recipe = steps, steps.task, steps.recipe
        self.accelerator = steps.accelerator

    def run(self, state: FitState) -> dict[str, Any]:
        """Train to the last epoch, from where `state` stands; returns the last record."""
        record: dict[str, Any] = {"epoch": 0, "best_epoch": 0, "best": -math.inf, "curves": []}
        saved = state.load()
        if saved is None:
            self.steps.start()
        else:
            record = saved.record
            self._say("Split %d goes on after epoch %d.", self.task.split, record["epoch"])
            if saved.tensors:  # none after the last epoch
                self.steps.restore(saved.tensors, record["updates"])
                self.steps.at_a_time = min(self.steps.at_a_time, record["at_a_time"])
        while not self._is_last(record):
            record = self._record(record, self._epoch(record["epoch"] + 1))
            if self.accelerator.is_main_process:
                tensors = {} if self._is_last(record) else self.steps.state()
                best = self.steps.kept() if record["best_epoch"] == record["epoch"] else None
                state.save(tensors, record, best)
        return record

    def _is_last(self, record: Mapping[str, Any]) -> bool:
        """Whether no epoch follows: all are done, or the last ones gained nothing."""
        since = record["epoch"] - record["best_epoch"]
        settings = self.task.settings
        patience = settings.patience if isinstance(settings, Tuned) else 0  # 0: it takes all
        return bool(record["epoch"] >= self.recipe.epochs or 0 < patience <= since)

    def _epoch(self, epoch: int) -> dict[str, Any]:
        """Train and validate; a row of the curves."""
        task, started = self.task, time.monotonic()
        try:
            loss = self._train(epoch)
            score, mos = self.steps.scores(task.val), task.mos[task.val]
        except RuntimeError as error:  # beyond what halving can do: the optimiser itself
            if not ran_out(error):
                raise
            raise AgiqaError(
                f"Memory ran out in epoch {epoch}; finished epochs are kept: start again with "
                f"{task.section}.micro_batch={max(1, self.steps.at_a_time // 2)}."
            ) from error
        ends = {"train_loss": loss, "val_srcc": srcc(mos, score), "val_plcc": plcc(mos, score)}
        self._say(
            "Split %d, epoch %d of %d: loss %.4f, validation SRCC %.4f, PLCC %.4f, %.1f s",
            *(task.split, epoch, self.recipe.epochs, *ends.values(), time.monotonic() - started),
        )
        return {"model": task.model, "seed": task.split, "epoch": epoch, **ends}

    def _train(self, epoch: int) -> float:
        """One pass over the training side; the mean loss of its steps."""
        rng = self._rng(epoch)
        order, size = rng.permutation(self.task.side["train"]), self.recipe.batch_size
        dropped = self.recipe.drop_last_train
        steps = len(order) // size if dropped else -(-len(order) // size)
        losses = []
        shown: Iterable[int] = range(steps)
        if self.accelerator.is_main_process:
            shown = track(shown, f"Epoch {epoch}", unit=size)
        for step in shown:
            rows = order[step * size : (step + 1) * size]
            now = rate((epoch - 1) * steps + step, self.recipe.epochs * steps, self.recipe)
            draws = self.task.draw(len(rows), rng)
            losses.append(self.steps.step(now, rows, draws))
        loss = float(self.accelerator.reduce(sum(losses), "sum")) / steps
        if not math.isfinite(loss):
            raise AgiqaError(
                f"The loss of epoch {epoch} is not finite: lower {self.task.section}.lr, which "
                f"is {self.recipe.lr:g}. Finished epochs are kept."
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
        text = f"{self.task.seed} {self.task.split} {epoch}"
        rng = np.random.default_rng(int(hashlib.sha256(text.encode()).hexdigest(), 16))
        torch.manual_seed(int(rng.integers(2**62)) + self.accelerator.process_index)
        return rng

    def _say(self, message: str, *values: object) -> None:
        if self.accelerator.is_main_process:
            log.info(message, *values)


def train(
    task: Task, accelerator: Accelerator, ledger: Path | None
) -> tuple[dict[str, Any], list[dict[str, Any]], FitState]:
    """Train to the end, or go on where the same fit stopped, in all processes.

    Args:
        task: what is learnt, and how.
        accelerator: of `start_processes`.
        ledger: where unfinished fits are kept; by default `agiqa.store.default_root()`.

    Returns:
        The weights of the best epoch, mapped into memory; one row an epoch: model, seed, epoch,
        train_loss, val_srcc, val_plcc; and the state, to be removed when the run is written.
    """
    bf16 = in_bf16(task.settings.precision, accelerator)
    arrays = task.mos, task.data.semantic
    identity = {
        **task.identity,
        "seed": task.seed,
        "split": task.split,
        "bf16": bf16,
        "initial_sha256": digest_weights(task.network),
        "data_sha256": digest_data(task.data.image_ids, arrays, task.side),
        "versions": {name: importlib.metadata.version(name) for name in ("agiqa", "torch")},
    }
    share = -(-task.recipe.batch_size // accelerator.num_processes)
    at_a_time = min(share, task.settings.micro_batch or share)
    training = Training(Steps(task, bf16, at_a_time, accelerator))
    state = FitState(identity, ledger)
    with state.writer() if accelerator.is_main_process else nullcontext():
        record = training.run(state)
    accelerator.wait_for_everyone()
    return dict(state.best(record)), list(record["curves"]), state


def in_bf16(precision: str, accelerator: Accelerator) -> bool:
    """Whether to train in bfloat16 autocast; `auto`: on GPUs that have it."""
    if precision != "auto":
        return precision == "bfloat16"
    return accelerator.device.type != "cpu" and bool(is_bf16_available(ignore_tpu=True))


def digest_weights(network: nn.Module) -> str:
    """A sha256 of a network's weights, names included."""
    sha = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.contiguous().numpy().data)
    return sha.hexdigest()


def digest_data(ids: Sequence[str], arrays: Sequence[np.ndarray], side: Side) -> str:
    """A sha256 of the images by id, and of what each array has of them: train and val in order."""
    sha = hashlib.sha256()
    for name in ("train", "val"):
        rows = side[name]
        sha.update(json.dumps([name, *(ids[row] for row in rows)]).encode())
        for array in arrays:
            sha.update(array[rows].data)
    return sha.hexdigest()
