"""The steps of a network's training: images in, weights moved, whatever the number of processes.

Below `epochs`, which decides what is shown when; what is learnt is the task's. Every process has
the whole network and takes its part of each step's images. The gradients are summed after the last
of them rather than while they arise (DistributedDataParallel): so a step that runs out of memory in
one process is repeated by all, with half as many images at a time and as many in all.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.func import functional_call

from agiqa.core.float32 import full_float32
from agiqa.core.memory import halve, ran_out, with_halving
from agiqa.core.params import Paper, Tuned
from agiqa.stage2.contract import score_rows
from agiqa.stage2.paper.inputs import PaperInputs
from agiqa.stage2.presets import Recipe
from agiqa.stage2.targets import Side
from agiqa.stage2.training.optimisation import (
    MovingAverage,
    decayed,
    make_optimiser,
    optimiser_state,
    restore_optimiser,
)
from agiqa.stage2.tuned.inputs import TunedInputs


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
