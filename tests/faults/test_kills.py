"""SIGKILL at random moments while rows are added, by one writer and by two at once."""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest

from agiqa.store import Shelf
from agiqa.store.checks import check_shelf
from kit.stored_rows import make_ids, make_vectors

FINGERPRINT = {"extractor": "nano", "prompt": "Describe the image."}
ROWS, WIDTH, BATCH = 1200, 64, 16  # as in worker.py
TRIALS = 60

IDS, VECTORS = make_ids(ROWS), make_vectors(ROWS, WIDTH)


def promised(folder: Path, rank: int, world: int) -> list[str]:
    """The image ids that a writer said are safe."""
    path = folder / f"acknowledged-{rank}"
    try:
        lines = path.read_text().split("\n")[:-1]
    except FileNotFoundError:
        lines = []
    return IDS[rank::world][: int(lines[-1]) if lines else 0]


def all_promised(folder: Path, writers: int) -> list[str]:
    return [name for rank in range(writers) for name in promised(folder, rank, writers)]


@pytest.mark.timeout(600)  # many kills; a busy disk takes its time
@pytest.mark.parametrize("writers", [1, 2])
def test_sigkill_while_rows_are_added(
    tmp_path: Path, open_worker: Callable, count: Callable, writers: int
) -> None:
    moments = random.Random(writers)
    row_of = {image_id: row for row, image_id in enumerate(IDS)}
    acknowledged = torn = lost = shelves = kills = trials = 0
    with ExitStack() as stack:
        workers = [stack.enter_context(open_worker()) for _ in range(writers)]
        folder = tmp_path / "0"
        while trials < TRIALS:
            folder.mkdir(exist_ok=True)
            # So many rows later, not so many seconds: a busy machine is to get as far as others.
            later = moments.randrange(12) * BATCH
            wanted = min(len(all_promised(folder, writers)) + later, ROWS)
            pids = [
                worker.start("extract", str(folder), rank, writers)
                for rank, worker in enumerate(workers)
            ]
            for worker in workers:  # one killed before its last promise has nothing more to promise
                worker.until(lambda: len(all_promised(folder, writers)) >= wanted)  # noqa: B023
            time.sleep(moments.uniform(0.0, 0.02))
            for pid in moments.sample(pids, writers):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            ended = [worker.wait() for worker in workers]
            assert set(ended) <= {0, -signal.SIGKILL}  # 0: it was just ready
            kills += ended.count(-signal.SIGKILL)
            trials += -signal.SIGKILL in ended

            shelf = Shelf.open(folder / "ledger", FINGERPRINT, WIDTH)
            found = sorted(shelf.ids(), key=row_of.__getitem__)
            vectors = shelf.read(found)  # raises for a row that fails its checksum
            expected = VECTORS[[row_of[image_id] for image_id in found]]
            torn += int((vectors.view("u2") != expected.view("u2")).any(axis=1).sum())
            safe = all_promised(folder, writers)
            lost += len(set(safe).difference(found))
            if len(found) == ROWS:
                assert check_shelf(shelf.folder).is_whole
                acknowledged, shelves = acknowledged + ROWS, shelves + 1
                folder = tmp_path / str(shelves)
        acknowledged += len(safe) if len(found) < ROWS else 0
        folder.mkdir(exist_ok=True)
        for rank, worker in enumerate(workers):
            worker.run("extract", str(folder), rank, writers)
    shelf = Shelf.open(folder / "ledger", FINGERPRINT, WIDTH)
    shelf.merge()
    assert check_shelf(shelf.folder).is_whole
    np.testing.assert_array_equal(shelf.read(IDS), VECTORS)
    count(
        moments=trials,
        processes_killed=kills,
        failed_to_open=0,
        shelves=shelves + 1,
        rows_acknowledged=acknowledged,
        torn_rows=torn,
        acknowledged_rows_lost=lost,
    )
    assert (torn, lost) == (0, 0)
    assert acknowledged > ROWS


HOSTS, ROUNDS = 2, 60


def test_hosts_whose_locks_lie_write_merge_and_are_killed(
    tmp_path: Path, open_worker: Callable, count: Callable
) -> None:
    """Two hosts on one folder (NFS, say), each sure to be alone, merging and freeing at once."""
    moments, kills, lost, wrong, rows = random.Random(5), 0, 0, 0, 0
    promises = [tmp_path / f"acknowledged-{host}" for host in range(HOSTS)]

    def safe() -> set[str]:
        lines = [line for path in promises if path.exists()
                 for line in path.read_text().split("\n")[:-1]]  # fmt: skip
        return {name for line in lines for name in IDS[slice(*map(int, line.split()))]}

    with ExitStack() as stack:
        hosts = [stack.enter_context(open_worker()) for _ in range(HOSTS)]
        for turn in range(ROUNDS):
            before = len(safe())
            pids = [
                worker.start("extract_without_locks", str(tmp_path), host, 1000 * host + turn)
                for host, worker in enumerate(hosts)
            ]
            for worker in hosts:
                worker.until(lambda: len(safe()) > min(before, ROWS - 9))  # noqa: B023
            time.sleep(moments.uniform(0.0, 0.05))
            for pid in moments.sample(pids, HOSTS):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            kills += [worker.wait() for worker in hosts].count(-signal.SIGKILL)
            shelf = Shelf.at(next((tmp_path / "ledger").glob("nano-*")))
            there = sorted(shelf.ids())
            lost += len(safe().difference(there))
            found, damaged = shelf.refreshed().read(there)
            expected = VECTORS[[IDS.index(name) for name in there]]
            wrong += int((found.view("u2") != expected.view("u2")).any(axis=1).sum())
            assert damaged == []
            rows = len(there)
    assert check_shelf(shelf.folder).is_whole
    assert kills > ROUNDS
    count(kills=kills, rows_acknowledged=rows, wrong_rows=wrong, acknowledged_rows_lost=lost)
    assert (wrong, lost) == (0, 0)
