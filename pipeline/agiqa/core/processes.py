"""Which of several processes this one is, by the variables that launchers set.

torchrun and accelerate set RANK, WORLD_SIZE and LOCAL_RANK; Slurm's `srun` sets SLURM_PROCID,
SLURM_NTASKS and SLURM_LOCALID. Stage 1 needs no more than these: each rank takes its share of the
images and talks to no other, so torch.distributed is never initialised here. Beside it what a
process computes on: its device, and float32 that is float32.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from agiqa.core.errors import AgiqaError

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")

# What accelerate takes for a sign of several processes, which it would then connect.
_LAUNCHED = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    *("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"),
)


@dataclass(frozen=True)
class Process:
    """One of `world` processes that do a job together."""

    rank: int = 0  # among all
    world: int = 1  # how many there are, on all machines
    local_rank: int = 0  # among those of this machine

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every `world`-th item from `rank` on: the ranks' shares are disjoint and make the whole.

        For that, all ranks must give the same items in the same order, whenever they start.
        """
        return items[self.rank :: self.world]

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.world}"


def this_process(environment: Mapping[str, str] = os.environ) -> Process:
    """The process that `environment` describes; the only one, unless a launcher says otherwise.

    Raises:
        AgiqaError: a variable is missing beside another, is no number, or a rank is out of range.
    """
    if "RANK" in environment or "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif "SLURM_PROCID" in environment and not _is_batch_script(environment):
        tasks = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")  # of this `srun`; of the job, perhaps
        size = tasks[0] if tasks[0] in environment else tasks[1]
        names = ("SLURM_PROCID", size, "SLURM_LOCALID")
    else:
        return Process()
    rank, world = (_number(environment, name, names[:2]) for name in names[:2])
    local_rank = _number(environment, names[2], names) if names[2] in environment else rank
    if not 0 <= rank < world or not 0 <= local_rank < world:
        raise AgiqaError(
            f"expected ranks from 0 to {names[1]} - 1, found {names[0]}={rank}, "
            f"{names[1]}={world}, {names[2]}={local_rank}; start with torchrun, accelerate launch "
            "or srun, or unset these variables to run one process"
        )
    return Process(rank, world, local_rank)


def device() -> "torch.device":
    """The device of this process: accelerate's choice, and by local rank which one of its kind.

    torch.distributed stays as it is: accelerate is asked as in a process that is alone.
    """
    import torch
    from accelerate import Accelerator

    process = this_process()
    hidden = {name: os.environ.pop(name) for name in _LAUNCHED if name in os.environ}
    try:
        selected: torch.device = Accelerator().device
    finally:
        os.environ.update(hidden)
    if process.world == 1 or selected.type == "cpu":
        return selected
    selected = torch.device(selected.type, process.local_rank % torch.accelerator.device_count())
    torch.accelerator.set_device_index(selected.index)
    return selected


def _number(environment: Mapping[str, str], name: str, together: Sequence[str]) -> int:
    try:
        return int(environment[name])
    except (KeyError, ValueError):
        raise AgiqaError(
            f"expected {' and '.join(together)} as numbers, as launchers set them, found "
            f"{name}={environment.get(name, '(unset)')}; set all of them, or unset them "
            "to run one process"
        ) from None


def _is_batch_script(environment: Mapping[str, str]) -> bool:
    """Whether this is a job's script itself, where SLURM_NTASKS counts what `srun` would start."""
    return environment.get("ENVIRONMENT") == "BATCH" and "SLURM_STEP_NUM_TASKS" not in environment


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute products and convolutions of float32 without TF32; afterwards as before.

    With TF32 GPUs multiply with 10 bits of mantissa. PyTorch lets cuDNN's convolutions use it
    unless told otherwise, and a program or its environment may have allowed it for matrix
    products too.
    """
    import torch

    cudnn: Any = torch.backends.cudnn
    try:
        before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    except RuntimeError:  # set by PyTorch's newer switches, which the older ones do not read
        switches: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)
        stated: list[str] = [switch.fp32_precision for switch in switches]
        try:
            for switch in switches:
                switch.fp32_precision = "ieee"
            yield
        finally:
            for switch, precision in zip(switches, stated, strict=True):
                switch.fp32_precision = precision
        return
    try:
        torch.set_float32_matmul_precision("highest")
        cudnn.allow_tf32 = False
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32 = before[1]
