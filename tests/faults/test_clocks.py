"""Clocks that jump and files from the future: nothing is decided by the time of day."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agiqa.store import Shelf, read_pack, write_pack
from agiqa.store.durable import folder_aside
from kit.stored_rows import add_rows, make_ids, make_vectors

FINGERPRINT = {"extractor": "nano", "prompt": "Describe the image."}
DAY = 86400.0
JUMPS = [0.0, DAY, -DAY, 3650 * DAY, -7000 * DAY, 7200.0, -7200.0, 0.0]


def test_a_clock_that_jumps_between_rows(tmp_path: Path, worker: Callable, count: Callable) -> None:
    worker.run("add_at", str(tmp_path), JUMPS)
    ids, vectors = make_ids(len(JUMPS)), make_vectors(len(JUMPS), 8)
    shelf = Shelf.open(tmp_path / "ledger", FINGERPRINT, 8)
    np.testing.assert_array_equal(shelf.read(ids), vectors)
    assert read_pack(tmp_path / "a.zarr").image_ids == tuple(ids)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "ledger"]
    count(jumps=len(JUMPS) - 1, rows_lost=0)


def test_files_from_the_future_and_the_past(tmp_path: Path) -> None:
    ids, vectors = make_ids(600), make_vectors(600, 8)
    shelf = Shelf.open(tmp_path, FINGERPRINT, 8)
    for row, moment in enumerate((time.time() + 1000 * DAY, 0.0, time.time() - DAY)):
        add_rows(shelf, ids[: 200 * (row + 1)], vectors[: 200 * (row + 1)])
        for path in [*shelf.folder.rglob("*"), shelf.folder]:
            os.utime(path, (moment, moment))
        again = Shelf.open(tmp_path, FINGERPRINT, 8)
        np.testing.assert_array_equal(
            again.read(ids[: 200 * (row + 1)]), vectors[: 200 * (row + 1)]
        )


@pytest.mark.parametrize("age", [2 * DAY, -2 * DAY])
def test_what_a_living_process_writes_aside_stays_however_old_it_looks(
    tmp_path: Path, age: float
) -> None:
    path = tmp_path / "a.zarr"
    with folder_aside(path) as aside:
        (aside / "half").touch()
        os.utime(aside, (time.time() - age,) * 2)
        write_pack(path, "nano", ["a"], [{}], make_ids(3), make_vectors(3, 1, 8))
        assert (aside / "half").exists()
    assert len(read_pack(path).image_ids) == 3
    assert list(tmp_path.iterdir()) == [path]
