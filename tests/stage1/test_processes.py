"""Several ranks give the store of one, whichever are killed and however many go on."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agiqa.data.datasets import folder
from agiqa.data.datasets.table import write_table
from kit.processes import AGIQA
from kit.stored_rows import files, flip

IMAGES, VECTORS = 30, 2


def wait_for(condition: Callable[[], bool], seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Ranks:
    """Starts ranks on a table, each a process with the variables that launchers set."""

    def __init__(self, table: Path, process: "subprocess.Popen[str]") -> None:
        self.table = table
        self.process = process

    def start(self, ledger: str, rank: int = 0, world: int = 0, stall: int = 0) -> int:
        """Start one, of `world` 0 without a launcher, and give its process id."""
        environment = {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
        job = {"ledger": ledger, "environment": environment if world else {}, "stall": stall}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def run(self, ledger: str, world: int) -> list[list[int | None]]:
        """Run a whole extraction: images, cached, computed and awaited of each rank."""
        for rank in range(world):
            (self.table / ledger / f"ended-{rank}").unlink(missing_ok=True)
            self.start(ledger, rank, world)
        return [json.loads(self.ended(ledger, rank)) for rank in range(world)]

    def ended(self, ledger: str, rank: int = 0) -> str:
        """Wait for a rank's end and give what it said."""
        path = self.table / ledger / f"ended-{rank}"
        wait_for(lambda: path.is_file() and path.stat().st_size > 0)
        return path.read_text()

    def kill_stalled(self, ledger: str, rank: int, pid: int) -> None:
        wait_for((self.table / ledger / f"stalled-{rank}").exists)
        os.kill(pid, signal.SIGKILL)

    def rows_written(self, ledger: str) -> list[int]:
        """Rows that are on the disk for each vector, those twice that were computed twice."""
        found: list[int] = []
        for path in sorted((self.table / ledger).glob("*/segments")):
            names = [file.name for file in path.glob("*.safetensors")]
            found.append(sum(int(name.split("-")[1].split(".")[0]) for name in names))
        return found

    def store(self, ledger: str) -> dict[str, bytes]:
        return files(self.table / f"{ledger}.zarr")


@pytest.fixture(scope="module")
def ranks(
    tmp_path_factory: pytest.TempPathFactory, tiny_lmm: Path, python: list[str]
) -> Iterator[Ranks]:
    """With the store of a process that was alone, `one`."""
    root = tmp_path_factory.mktemp("ranks")
    (root / "images").mkdir()
    for number in range(IMAGES):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{number:02d}.png")
    write_table(folder.prepare(root / "images", "some"), root / "some")
    script = Path(__file__).with_name("rank_worker.py")
    command, pipe = [*python, str(script), str(root / "some"), str(tiny_lmm)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        ranks = Ranks(root / "some", process)
        ranks.start("one")
        assert json.loads(ranks.ended("one")) == [IMAGES, 0, IMAGES * VECTORS, None]
        yield ranks
        process.stdin.close()


def test_a_killed_process_goes_on_and_leaves_no_workers(ranks: Ranks) -> None:
    """SIGKILL in the middle: acknowledged rows are not computed again, the pack is the same."""
    killed = ranks.start("alone", stall=6)
    wait_for(lambda: ranks.rows_written("alone") == [20] * VECTORS)
    workers = Path(f"/proc/{killed}/task/{killed}/children").read_text().split()  # Linux
    assert workers
    ranks.kill_stalled("alone", 0, killed)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    ranks.start("alone")
    expected = [IMAGES, 20 * VECTORS, 10 * VECTORS, None]
    assert json.loads(ranks.ended("alone")) == expected
    assert ranks.store("alone") == ranks.store("one")


def test_two_ranks_give_the_store_of_one(ranks: Ranks) -> None:
    told = ranks.run("two", world=2)
    assert [computed for _, _, computed, _ in told] == [30, 30]
    assert None in [awaited for *_, awaited in told]  # the last one packed, or both at once did
    assert all(images == (IMAGES if awaited is None else 15) for images, *_, awaited in told)
    assert ranks.store("two") == ranks.store("one")
    assert ranks.rows_written("two") == [IMAGES] * VECTORS
    assert len(list((ranks.table / "two").rglob("writer-1.lock"))) == VECTORS
    assert len(list((ranks.table / "two").rglob("*.safetensors"))) == VECTORS  # merged
    assert ranks.run("two", world=1) == [[IMAGES, IMAGES * VECTORS, 0, None]]
    assert ranks.store("two") == ranks.store("one")


def test_what_a_killed_rank_leaves_the_next_run_computes(ranks: Ranks) -> None:
    killed = ranks.start("left", 1, 2, stall=3)
    wait_for((ranks.table / "left" / "stalled-1").exists)
    ranks.start("left", 0, 2)
    lacking = (15 - 8) * VECTORS
    assert json.loads(ranks.ended("left", 0)) == [15, 0, 30, lacking]  # it waits for nobody
    ranks.kill_stalled("left", 1, killed)
    assert not (ranks.table / "left.zarr").exists()
    whole = IMAGES * VECTORS
    assert ranks.run("left", world=1) == [[IMAGES, whole - lacking, lacking, None]]
    assert ranks.store("left") == ranks.store("one")
    assert ranks.rows_written("left") == [IMAGES] * VECTORS  # of those in rank 1's hands no row


def test_a_rank_that_is_there_already_is_named(ranks: Ranks) -> None:
    stalled = ranks.start("twice", 1, 2, stall=2)
    wait_for((ranks.table / "twice" / "stalled-1").exists)
    ranks.start("twice", 1, 2)
    said = ranks.ended("twice", 1)
    assert f"expected to be the only writer of rank 1, found process {stalled} on" in said
    assert "\n" not in said
    os.kill(stalled, signal.SIGKILL)


@pytest.mark.slow
def test_killed_ranks_go_on_in_any_number(ranks: Ranks) -> None:
    """Both killed in their third batch: what was flushed is never computed again."""
    started = [ranks.start("killed", rank, 2, stall=3) for rank in range(2)]
    # A thread writes behind the model.
    wait_for(lambda: ranks.rows_written("killed") == [16] * VECTORS)
    for rank, pid in enumerate(started):
        ranks.kill_stalled("killed", rank, pid)
    assert ranks.rows_written("killed") == [16] * VECTORS  # two batches of four each
    assert not (ranks.table / "killed.zarr").exists()
    for world in (3, 2, 1):
        ledger = f"by-{world}"
        shutil.copytree(ranks.table / "killed", ranks.table / ledger)
        ranks.run(ledger, world)
        assert ranks.store(ledger) == ranks.store("one")
        assert ranks.rows_written(ledger) == [IMAGES] * VECTORS


def test_damaged_rows_are_computed_again_by_one_of_two(ranks: Ranks) -> None:
    shutil.copytree(ranks.table / "one", ranks.table / "damaged")
    flip(min((ranks.table / "damaged").glob("*/segments/*.safetensors")), -1)
    assert [IMAGES, 59, 1, None] in ranks.run("damaged", world=2)  # who packs saves the rest
    assert ranks.store("damaged") == ranks.store("one")


@pytest.mark.slow
def test_the_command_under_torchrun(ranks: Ranks, tiny_lmm: Path, python: list[str]) -> None:
    """One store, its result on stdout, and every other line says whose it is."""
    torchrun = [*python, "-c", "from torch.distributed.run import main; main()", "--standalone"]
    agiqa = [*python, *AGIQA, "extract", "some"]
    options = ["--only", "semantic", "--json", "--cache", str(ranks.table.parent)]
    settings = [f"--set=semantic.model={tiny_lmm}", "--set=semantic.name=run",
                "--set=semantic.batch_size=4"]  # fmt: skip
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", "--no-python", *agiqa, *options, *settings],
        env=os.environ | {"AGIQA_STORE": str(ranks.table / "torchrun")},
        cwd=ranks.table,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert '"store": "' in done.stdout
    assert "[rank 0 of 2] run: 15 images, 2 vectors each, 0 of 30 cached" in done.stderr
    assert "[rank 1 of 2] run: 15 images, 2 vectors each, 0 of 30 cached" in done.stderr
    ranked, single = ranks.store("run"), ranks.store("one")
    metadata = "zarr.json"  # of the group: it holds the extractor's name
    assert ranked.pop(metadata) != single.pop(metadata)
    assert ranked == single
