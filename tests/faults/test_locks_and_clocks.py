"""Nothing rests on locks or the time of day: a lock is a courtesy, clocks may jump."""

import errno
import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agiqa.store import LockedError, Shelf, read_pack, write_pack
from agiqa.store.files import folder_aside
from kit.stored_rows import add_rows, make_ids, make_vectors

FINGERPRINT = {"extractor": "nano", "prompt": "Describe the image."}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf.open(tmp_path, FINGERPRINT, 8)


def test_a_second_writer_is_refused_at_once_and_a_dead_ones_lock_is_free(
    shelf: Shelf, tmp_path: Path, worker: Callable, count: Callable
) -> None:
    pid = worker.start("hold_the_lock", str(tmp_path))
    worker.until((tmp_path / "held").exists)
    expected = rf"found process {pid} on {re.escape(socket.gethostname())}, writing since 20"
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        with pytest.raises(LockedError, match=expected), shelf.writer():
            pass
        seconds.append(time.monotonic() - started)
    os.kill(pid, 0)  # it still holds the lock, and would for a minute: nobody waited for it
    assert shelf.ids() == frozenset()  # a reader may read
    os.kill(pid, signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL
    assert (shelf.folder / "owner.json").exists()
    add_rows(shelf, make_ids(1), make_vectors(1, 8))
    assert len(shelf.ids()) == 1
    count(refused=3, slowest_refusal_in_seconds=round(max(seconds), 2), locks_left_by_the_dead=0)


@pytest.mark.parametrize("pid", [pytest.param(os.getpid(), id="ours"), 1, 2**22 + 1, -1])
@pytest.mark.parametrize("note", [True, False])
def test_a_note_of_a_dead_owner_is_no_lock_though_its_process_id_lives_again(
    shelf: Shelf, pid: int, note: bool
) -> None:
    (shelf.folder / "writer.lock").touch()
    owner = {"pid": pid, "host": socket.gethostname(), "since": "2024-01-01T00:00:00+00:00"}
    (shelf.folder / "owner.json").write_text(json.dumps(owner) if note else "{torn")
    add_rows(shelf, make_ids(1), make_vectors(1, 8))
    assert len(shelf.ids()) == 1
    assert not (shelf.folder / "owner.json").exists()


def test_two_writers_of_one_row_are_idempotent(tmp_path: Path, count: Callable) -> None:
    ids, vectors = make_ids(300), make_vectors(300, 8)
    others = make_vectors(300, 8, seed=1)
    one, two = (Shelf.open(tmp_path, FINGERPRINT, 8, rank=rank) for rank in (0, 1))
    with two.writer() as second, one.writer() as first:
        second.add(ids[100:], others[100:])
        first.add(ids[:200], vectors[:200])
        first.add(ids[:50], others[:50])  # already there: the first wins
    found = Shelf.open(tmp_path, FINGERPRINT, 8).read(ids)
    np.testing.assert_array_equal(found[:100], vectors[:100])
    np.testing.assert_array_equal(found[200:], others[200:])
    either = [row.tobytes() for row in (*vectors[100:200], *others[100:200])]
    assert all(row.tobytes() in either for row in found[100:200])
    one.merge()
    with one.writer() as first:
        first.add(ids, others)
    again = Shelf.open(tmp_path, FINGERPRINT, 8)
    np.testing.assert_array_equal(again.read(ids), found)
    assert again.damaged() == ()
    count(rows_written_twice=100, mixed=0)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_stops_nobody(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    add_rows(shelf, make_ids(3), make_vectors(3, 8))
    assert len(shelf.ids()) == 3


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
