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
from agiqa.store.ledger.orphans import orphans_of_shelf
from agiqa.store.ledger.shelf_check import check_shelf
from kit.stored_rows import make_ids, make_vectors

FINGERPRINT = {"extractor": "nano", "prompt": "Describe the image."}
ROWS, WIDTH, KILLS = 5000, 64, 10


def damage(shelf: Shelf, places: random.Random) -> set[int]:
    """One bit in each of ten chunks, a journal line, two useless files; the rows lost by it."""
    lost = set(range(4864, 5000))  # the last line's
    for chunk in places.sample(range(19), 10):
        row = places.randrange(256)
        path = shelf.folder / "vectors" / f"c.{chunk}.0"
        data = bytearray(path.read_bytes())
        data[(row * WIDTH + places.randrange(WIDTH)) * 2] ^= 1
        path.write_bytes(data)
        lost.add(chunk * 256 + row)
    journal = shelf.folder / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"first":4864', b'"first":4865'))
    (shelf.folder / "vectors" / "c.20.0").write_bytes(b"never acknowledged")
    (shelf.folder / "vectors" / "c.3.0.partial").write_bytes(b"half a chunk")
    return lost


def test_sigkill_at_random_moments_of_a_repair(
    tmp_path: Path, open_worker: Callable, count: Callable
) -> None:
    ids, vectors = make_ids(ROWS), make_vectors(ROWS, WIDTH)
    whole = Shelf.open(tmp_path / "whole", FINGERPRINT, WIDTH)
    with whole.writer() as writer:
        writer.add(ids, vectors)
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
            time.sleep(moments.uniform(0.0, 0.25))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            status = mending.wait()
            unfinished += status != 0
            kept = [row for row in range(ROWS) if row not in lost]
            names = [ids[row] for row in kept]
            assert Shelf.at(shelf.folder).ids() >= frozenset(names)
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
