"""Which of several processes this is, and float32 that is float32: no TF32 while it lasts."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic, Visual
from agiqa.core.processes import Process, full_float32, this_process
from agiqa.stage1.extractors import ImageTextExtractor, VisionExtractor, semantic_extractor

SLURM = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("environment", "process"),
    [
        ({}, Process(0, 1, 0)),
        ({"LOCAL_RANK": "1"}, Process(0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, Process(3, 4, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Process(1, 2, 1)),
        (SLURM, Process(5, 8, 1)),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "6"}, Process(5, 6, 1)),
        (SLURM | {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, Process(0, 2, 0)),
        ({"SLURM_NTASKS": "8"}, Process(0, 1, 0)),  # in salloc's shell: nothing was started yet
        ({"ENVIRONMENT": "BATCH", **SLURM, "SLURM_PROCID": "0"}, Process(0, 1, 0)),
        ({"ENVIRONMENT": "BATCH", **SLURM, "SLURM_STEP_NUM_TASKS": "8"}, Process(5, 8, 1)),
    ],
)
def test_launchers_variables(environment: dict[str, str], process: Process) -> None:
    assert this_process(environment) == process


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"RANK": "1"}, r"RANK and WORLD_SIZE as numbers, .* found WORLD_SIZE=\(unset\)"),
        ({"WORLD_SIZE": "2"}, r"found RANK=\(unset\)"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "found RANK=one"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "0 to WORLD_SIZE - 1, found RANK=2, WORLD_SIZE=2"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "found RANK=-1"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE=0"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "2"}, "LOCAL_RANK=2; start with torchrun"),
        ({"SLURM_PROCID": "0"}, r"SLURM_PROCID and SLURM_NTASKS .* SLURM_NTASKS=\(unset\)"),
        (SLURM | {"SLURM_NTASKS": "5"}, "found SLURM_PROCID=5, SLURM_NTASKS=5"),
    ],
)
def test_variables_that_do_not_fit_are_one_line(environment: dict[str, str], found: str) -> None:
    with pytest.raises(AgiqaError, match=found) as caught:
        this_process(environment)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("world", [1, 2, 3, 12])
def test_shares_are_disjoint_and_make_the_whole(world: int) -> None:
    items = list(range(10))
    shares = [Process(rank, world).share(items) for rank in range(world)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_ranks_device_needs_no_process_group(python: list[str]) -> None:
    """With these variables accelerate itself would wait for a second process."""
    code = (
        "import os, torch; from agiqa.core.processes import device; found = device(); "
        "assert not torch.distributed.is_initialized(); "
        "assert [os.environ[n] for n in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')] == ['1', '2', '1'];"
        "print(found, torch.accelerator.device_count())"
    )
    launched = os.environ | {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    done = subprocess.run(
        [*python, "-c", code], env=launched, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found, count = done.stdout.split()
    assert found == "cpu" if count == "0" else found.endswith(f":{1 % int(count)}")


@pytest.fixture
def allowed() -> object:
    """TF32 is allowed everywhere."""
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    yield
    torch.backends.cudnn.allow_tf32 = before[0]
    torch.set_float32_matmul_precision(before[1])


def _now() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def test_it_is_switched_off_and_on_again(allowed: None) -> None:
    assert _now() == (True, True)
    with full_float32():
        assert _now() == (False, False)
        with full_float32():
            assert _now() == (False, False)
        assert _now() == (False, False)
    assert _now() == (True, True)
    with pytest.raises(KeyError), full_float32():
        raise KeyError
    assert _now() == (True, True)


def test_pytorchs_newer_switches_are_heeded_too(python: list[str]) -> None:
    """In a process of its own: with them set, the older ones cannot be read."""
    code = """
import torch, warnings
warnings.simplefilter("error")
from agiqa.core.processes import full_float32
conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
conv.fp32_precision, matmul.fp32_precision = "ieee", "tf32"
conv.fp32_precision = "tf32"
torch.backends.cudnn.rnn.fp32_precision = "ieee"
with full_float32():
    assert (conv.fp32_precision, matmul.fp32_precision) == ("ieee", "ieee")
assert (conv.fp32_precision, matmul.fp32_precision) == ("tf32", "tf32")
"""
    subprocess.run([*python, "-c", code], check=True, timeout=600)


def test_every_extractor_runs_without_it(
    allowed: None, family_folder: Callable, tiny_lmm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    forward = nn.Conv2d.forward

    def watched(module: nn.Conv2d, pixels: torch.Tensor) -> torch.Tensor:
        seen.append(_now())
        return forward(module, pixels)

    monkeypatch.setattr(nn.Conv2d, "forward", watched)
    for extractor in (
        ImageTextExtractor(Semantic(model=str(tiny_lmm), batch_size=1)),
        semantic_extractor(Semantic(model=str(family_folder("clip")), batch_size=1)),
        VisionExtractor(Visual(model=str(tiny_lmm), layers=(1,), image_size=32, closeup=0)),
    ):
        count = len(seen)
        extractor.extract([extractor.preprocess(Image.new("RGB", (40, 40)))], [0])
        assert len(seen) > count
    assert set(seen) == {(False, False)}
