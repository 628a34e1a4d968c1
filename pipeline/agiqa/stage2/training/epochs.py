"""A network's training from epoch to epoch: what the presets `paper` and `tuned` share.

Every random draw follows from the seed, the split and the epoch, so that a fit stopped at an
epoch's end goes on to the bit (`resume`). The validation side picks the epoch; the test side is not
touched. What is learnt is the `Task`'s.

Several GPUs (`accelerate launch`) share each step's images (`Steps`): every process has the whole
network and takes its part. The gradients are summed after the last of them rather than while they
arise (DistributedDataParallel): so a step that runs out of memory in one process is repeated by
all, with half as many images at a time and as many in all. How a recipe moves the weights follows
below; optimiser and moving average are named tensors, so that they are kept with the rest.
"""

import hashlib
import importlib.metadata
import json
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import is_bf16_available
from torch import Tensor, nn
from torch.func import functional_call

from agiqa.core.errors import AgiqaError
from agiqa.core.memory import halve, ran_out, with_halving
from agiqa.core.params import Paper, Tuned
from agiqa.core.processes import full_float32
from agiqa.core.progress import track
from agiqa.data.metrics import plcc, srcc
from agiqa.stage2.contract import score_rows
from agiqa.stage2.features import Side
from agiqa.stage2.paper.inputs import PaperInputs
from agiqa.stage2.presets import Recipe
from agiqa.stage2.training.resume import FitState
from agiqa.stage2.tuned.inputs import TunedInputs

log = logging.getLogger(__name__)

JOINING = timedelta(hours=2)  # of the other processes, while the first decodes the images
HALF_CYCLE = 50  # steps from the full rate to 0 in the authors' schedule (T_max)
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what Adam remembers of each parameter


@dataclass(eq=False)
class Task(ABC):
    """One split's training: of a network, whose first output is the score, on images by row `(n,)`.

    `identity` is what determines the result beside what all trainings have (`epochs.train`).
    """

    model: ClassVar[str]  # the network's name in curves
    section: ClassVar[str]  # of the settings, for messages
    batch: ClassVar[int]  # images scored at a time, at most
    advice: ClassVar[str]  # what to do where memory runs out with a single image

    network: nn.Module
    data: PaperInputs | TunedInputs
    mos: np.ndarray  # (N,), as the network is to score
    split: int  # the split's seed
    side: Side
    seed: int  # of the fit
    settings: Paper | Tuned
    recipe: Recipe
    identity: Mapping[str, object]

    @property
    def val(self) -> np.ndarray:
        """Rows of the images that pick the epoch."""
        return self.side["val"]

    def groups(self) -> list[dict[str, Any]]:
        """Parameters for AdamW that differ in `weight_decay` and `share`, of the learning rate."""
        return decayed(self.network.parameters(), self.recipe)

    def start(self, device: torch.device) -> None:  # noqa: B027 - most start as they were made
        """Prepare the network, where a training begins."""

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw what happens to `count` images: a row for each."""
        return np.empty((count, 0))

    @abstractmethod
    def inputs(
        self, rows: np.ndarray, device: torch.device, draws: np.ndarray | None = None
    ) -> tuple[Tensor, ...]:
        """What the network takes of images; as they are without draws."""

    @abstractmethod
    def loss(self, output: Any, rows: np.ndarray) -> Tensor:
        """Loss summed over the images, by what the network puts out."""


class Steps:
    """A task's network, its optimiser and its moving average, on accelerate's device.

    Args:
        task: what is learnt, and how.
        bf16: whether to train in bfloat16 autocast.
        at_a_time: most images at a time; less where memory runs out.
        accelerator: of this process.
    """

    def __init__(self, task: Task, bf16: bool, at_a_time: int, accelerator: Accelerator) -> None:
        self.accelerator, self.device = accelerator, accelerator.device
        self.task, self.recipe, self.bf16, self.at_a_time = task, task.recipe, bf16, at_a_time
        self.network = task.network.to(self.device)
        self.optimiser = make_optimiser(self.network, task.recipe, task.groups())
        self.average = MovingAverage(self.network, self.recipe.ema) if self.recipe.ema else None

    def start(self) -> None:
        """Prepare the network for its first epoch."""
        with self._autocast():
            self.task.start(self.device)
        if self.average is not None:
            self.average = MovingAverage(self.network, self.recipe.ema)

    def step(self, rate: float, rows: np.ndarray, draws: np.ndarray) -> Tensor:
        """One update by the images `rows` `(B,)`; this process's share of the mean loss."""
        self.network.train()
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
        loss = self._repeat_until_it_fits(rows, draws)
        self._sum_gradients()
        self.optimiser.step()
        if self.average is not None:
            self.average.update(self.network)
        return loss

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """Scores of the images `rows` `(n,)` by the weights that would be kept, from all processes.

        In the training's precision: they choose an epoch, the test side is scored in float32.
        """
        processes = self.accelerator.num_processes
        share = -(-len(rows) // processes)
        own = np.resize(rows, share * processes)[self.accelerator.process_index :: processes]
        self.network.eval()
        with self._autocast():
            scored, *_ = with_halving(
                lambda size: score_rows(self._kept, self.task.inputs, own, size, self.device),
                self.task.batch,
                "validation",
                self.task.advice,
            )
        gathered = self.accelerator.gather(scored.to(self.device)).cpu()
        scores: np.ndarray = gathered.view(processes, share).T.flatten()[: len(rows)].numpy()
        return scores

    def kept(self) -> dict[str, Tensor]:
        """The weights to score with: the moving average, where there is one."""
        return {**self.network.state_dict(), **self._averaged()}

    def state(self) -> dict[str, Tensor]:
        """All that the next step starts from, by name."""
        parts = {
            "network": self.network.state_dict(),
            "optimiser": optimiser_state(self.optimiser, self.network),
            "average": self._averaged(),
        }
        return {f"{part}/{name}": t for part, named in parts.items() for name, t in named.items()}

    def restore(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Go on from a `state` after so many updates of the average."""
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "optimiser": {}, "average": {}}
        for name, tensor in state.items():
            part, _, inner = name.partition("/")
            parts[part][inner] = tensor
        self.network.load_state_dict(parts["network"])
        restore_optimiser(self.optimiser, self.network, parts["optimiser"])
        if self.average is not None:
            self.average.restore(parts["average"], updates)

    def _repeat_until_it_fits(self, rows: np.ndarray, draws: np.ndarray) -> Tensor:
        own = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        while True:
            loss = self._gradients(rows[own], draws[own], len(rows))
            if not self._anywhere(loss is None) and loss is not None:
                return loss
            doing = f"training, still {self.recipe.batch_size} a step"
            self.at_a_time = halve(self.at_a_time, doing, self.task.advice)

    def _gradients(self, rows: np.ndarray, draws: np.ndarray, whole: int) -> Tensor | None:
        """Gradients of the mean loss over `whole` images; None if memory ran out."""
        self.optimiser.zero_grad()
        total = torch.zeros((), device=self.device)
        try:
            with full_float32():
                for start in range(0, len(rows), self.at_a_time):
                    part = slice(start, start + self.at_a_time)
                    with self._autocast():
                        inputs = self.task.inputs(rows[part], self.device, draws[part])
                        summed = self.task.loss(self.network(*inputs), rows[part])
                    loss = summed / whole
                    loss.backward()
                    total += loss.detach()
        except RuntimeError as error:
            if not ran_out(error):
                raise
            return None
        return total

    def _sum_gradients(self) -> None:
        if self.accelerator.num_processes == 1:
            return
        for parameter in self.network.parameters():
            own = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            parameter.grad = self.accelerator.reduce(own, "sum")

    def _anywhere(self, happened: bool) -> bool:
        """Whether it happened in any process."""
        if self.accelerator.num_processes == 1:
            return happened
        flag = torch.tensor(float(happened), device=self.device)
        return bool(self.accelerator.reduce(flag, "sum") > 0)

    def _kept(self, *given: Tensor) -> Any:
        """The network with the weights that would be kept."""
        return functional_call(self.network, self._averaged(), given)

    def _averaged(self) -> dict[str, Tensor]:
        return self.average.weights if self.average is not None else {}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


def make_optimiser(
    model: nn.Module, recipe: Recipe, groups: Sequence[dict[str, Any]] = ()
) -> torch.optim.Optimizer:
    """Adam with L2 on everything, as the authors, or AdamW that spares biases and norms.

    AdamW may be given groups of parameters, of which each has its decay and share of the rate.
    """
    if recipe.optimiser == "adam":
        parameters = list(model.parameters())
        return torch.optim.Adam(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    return torch.optim.AdamW(groups or decayed(model.parameters(), recipe), lr=recipe.lr)


def decayed(
    parameters: Iterable[nn.Parameter], recipe: Recipe, share: float = 1.0
) -> list[dict[str, Any]]:
    """Groups of parameters whose matrices decay; biases and norms do not.

    Args:
        parameters: of a network, or of a part of it.
        recipe: has the decay.
        share: of the learning rate.
    """
    every = list(parameters)
    return [
        {"params": [p for p in every if (p.ndim > 1) == matrices], "share": share,
         "weight_decay": recipe.weight_decay if matrices else 0.0}
        for matrices in (True, False)
    ]  # fmt: skip


def rate(step: int, steps: int, recipe: Recipe) -> float:
    """Learning rate of a step, counted from 0, of `steps`."""
    rise = min(1.0, (step + 1) / max(1.0, recipe.warmup * steps))
    turn = step / HALF_CYCLE if recipe.schedule == "cycle" else step / steps
    return recipe.lr * rise * 0.5 * (1 + math.cos(math.pi * turn))


def optimiser_state(optimiser: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """What the optimiser remembers, as `<parameter>.<moment>`."""
    return {
        f"{name}.{moment}": value
        for name, parameter in model.named_parameters()
        for moment, value in optimiser.state[parameter].items()
    }


def restore_optimiser(
    optimiser: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Let the optimiser remember what `optimiser_state` gave."""
    for name, parameter in model.named_parameters():
        optimiser.state[parameter] = {
            moment: tensors[f"{name}.{moment}"].to(
                parameter.device if moment != "step" else "cpu", copy=True
            )
            for moment in MOMENTS
        }


class MovingAverage:
    """Exponential moving average of a model's parameters."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    def update(self, model: nn.Module) -> None:
        """Take in the weights of one more step; the first ones count more, or it lags behind."""
        self.updates += 1
        decay = min(self.decay, self.updates / (10 + self.updates))
        averages = list(self.weights.values())
        weights = [p.detach() for p in model.parameters()]
        torch._foreach_lerp_(averages, weights, 1 - decay)

    def restore(self, weights: Mapping[str, Tensor], updates: int) -> None:
        """Go on from a saved average."""
        self.updates = updates
        for name, tensor in weights.items():
            self.weights[name].copy_(tensor)


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
