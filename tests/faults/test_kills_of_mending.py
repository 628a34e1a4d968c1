"""A repair killed at any moment loses no row that it could have saved, and can be run again."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from agiqa.store import Shelf
from agiqa.store.checks import check_shelf
from agiqa.store.upkeep.clearing import orphans_of_shelf
from kit.stored_rows import make_ids, make_vectors

FINGERPRINT = {"extractor": "nano", "prompt": "Describe the image."}
ROWS, WIDTH, KILLS = 5000, 64, 10
IDS, VECTORS = make_ids(ROWS), make_vectors(ROWS, WIDTH)


def damage(shelf: Shelf, places: random.Random) -> set[int]:
    """One bit in each of ten rows, a segment restored that was merged away; the rows lost by it."""
    lost = set(places.sample(range(100, ROWS), 10))
    segments = [path for path in (shelf.folder / "segments").iterdir() if path.stat().st_size]
    for path in segments:
        data = bytearray(path.read_bytes())
        count = int(path.name.split("-")[1].split(".")[0])
        ids = data[-32 * count :]
        for row in lost:
            if (at := ids.find(bytes.fromhex(IDS[row]))) >= 0:
                data[len(data) - count * (WIDTH * 2 + 32) + at // 32 * WIDTH * 2] ^= 1
        path.write_bytes(data)
    shelf.rows.add(IDS[:100], VECTORS[:100])
    left = shelf.folder / "segments" / ".killed.partial"
    left.write_bytes(b"half a segment")
    os.utime(left, (0, 0))
    return lost


def test_sigkill_at_random_moments_of_a_repair(
    tmp_path: Path, open_worker: Callable, count: Callable
) -> None:
    ids, vectors = IDS, VECTORS
    whole = Shelf.open(tmp_path / "whole", FINGERPRINT, WIDTH)
    with whole.writer() as writer:
        for start in range(0, ROWS, 250):
            writer.add(ids[start : start + 250], vectors[start : start + 250])
            writer.flush()
    moments, unfinished = random.Random(2), 0
    ledger = tmp_path / "ledger"
    with open_worker() as mending:
        for _ in range(KILLS):
            shutil.rmtree(ledger, ignore_errors=True)
            shutil.copytree(tmp_path / "whole", ledger)
            shelf = Shelf.open(ledger, FINGERPRINT, WIDTH)
            lost = damage(shelf, moments)
            pid = mending.start("mend", str(ledger))
            mending.until((ledger / "started").exists)
            time.sleep(moments.uniform(0.0, 0.1))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            status = mending.wait()
            unfinished += status != 0
            kept = [row for row in range(ROWS) if row not in lost]
            names = [ids[row] for row in kept]
            np.testing.assert_array_equal(Shelf.at(shelf.folder).read(names), vectors[kept])
            (ledger / "started").unlink()
            mending.start("mend", str(ledger))
            assert mending.wait() == 0
            assert check_shelf(shelf.folder).is_whole
            again = Shelf.at(shelf.folder)
            assert again.ids() == frozenset(names)
            np.testing.assert_array_equal(again.read(names), vectors[kept])
            assert orphans_of_shelf(shelf.folder) == ([], [])
    assert unfinished >= KILLS // 4  # else the kills came too late to say anything
    count(trials=KILLS, killed_in_the_middle=unfinished, rows_lost_that_were_whole=0)
