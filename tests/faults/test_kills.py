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
from kit.stored_rows import make_ids, make_vectors

FINGERPRINT = {"extractor": "nano", "prompt": "Describe the image."}
ROWS, WIDTH, BATCH = 1200, 64, 16  # as in worker.py
TRIALS = 100

IDS, VECTORS = make_ids(ROWS), make_vectors(ROWS, WIDTH)


def array_files(shelf: Shelf) -> dict[str, bytes]:
    """The arrays of all sections, without what kills leave aside."""
    paths = [path for path in shelf.folder.rglob("*") if path.parent.name == "vectors"]
    return {
        str(path.relative_to(shelf.folder)): path.read_bytes()
        for path in paths
        if ".partial" not in str(path.relative_to(shelf.folder))
    }


def promised(folder: Path, section: int, sections: int) -> list[str]:
    """The image ids that a writer said are safe."""
    path = folder / f"acknowledged-{section}"
    try:
        lines = path.read_text().split("\n")[:-1]
    except FileNotFoundError:
        lines = []
    return IDS[section::sections][: int(lines[-1]) if lines else 0]


def all_promised(folder: Path, writers: int) -> list[str]:
    return [name for section in range(writers) for name in promised(folder, section, writers)]


@pytest.mark.timeout(600)  # a hundred kills; a busy disk takes its time
@pytest.mark.parametrize("writers", [1, 2])
def test_sigkill_while_rows_are_added(
    tmp_path: Path, open_worker: Callable, count: Callable, writers: int
) -> None:
    moments = random.Random(writers)
    row_of = {image_id: row for row, image_id in enumerate(IDS)}
    acknowledged = torn = lost = shelves = kills = trials = 0
    (tmp_path / "undisturbed").mkdir()
    with ExitStack() as stack:
        workers = [stack.enter_context(open_worker()) for _ in range(writers)]
        for section, worker in enumerate(workers):
            worker.run("extract", str(tmp_path / "undisturbed"), section, writers)
        undisturbed = array_files(Shelf.open(tmp_path / "undisturbed/ledger", FINGERPRINT, WIDTH))
        folder = tmp_path / "0"
        while trials < TRIALS:
            folder.mkdir(exist_ok=True)
            # So many rows later, not so many seconds: a busy machine is to get as far as others.
            later = moments.randrange(12) * BATCH
            wanted = min(len(all_promised(folder, writers)) + later, ROWS)
            pids = [
                worker.start("extract", str(folder), section, writers)
                for section, worker in enumerate(workers)
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
                assert array_files(shelf) == undisturbed  # to the bit, whatever happened
                acknowledged, shelves = acknowledged + ROWS, shelves + 1
                folder = tmp_path / str(shelves)
        acknowledged += len(safe) if len(found) < ROWS else 0
        folder.mkdir(exist_ok=True)
        for section, worker in enumerate(workers):
            worker.run("extract", str(folder), section, writers)
    shelf = Shelf.open(folder / "ledger", FINGERPRINT, WIDTH)
    assert array_files(shelf) == undisturbed
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
