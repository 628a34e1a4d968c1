"""Rank 0 waits for those who work, not for those who died or never came."""

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agiqa.stage1 import other_processes
from agiqa.stage1.other_processes import wait_for_others
from agiqa.store import Shelf

IDS = [hashlib.sha256(bytes([row])).hexdigest() for row in range(6)]
FINGERPRINT = {"extractor": "tiny"}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_processes, "START_SECONDS", 0.5)
    monkeypatch.setattr(other_processes, "END_SECONDS", 0.3)
    monkeypatch.setattr(other_processes, "POLL_SECONDS", 0.01)


@pytest.fixture
def open_shelf(tmp_path: Path) -> Callable[[int], Shelf]:
    return lambda rank: Shelf.open(tmp_path, FINGERPRINT, 4, rank=rank)


def add(shelf: Shelf, ids: list[str]) -> None:
    with shelf.writer() as writer:
        writer.add(ids, np.ones((len(ids), 4), dtype=np.float16))


def wait(shelf: Shelf, world: int = 2) -> float:
    """Seconds waited."""
    started = time.monotonic()
    wait_for_others([IDS], [shelf], world, started)
    return time.monotonic() - started


def test_no_wait_when_all_is_done(
    open_shelf: Callable[[int], Shelf],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(other_processes, "POLL_SECONDS", 60.0)
    add(open_shelf(1), IDS[1::2])  # rank 0's own rows are not its business
    assert wait(open_shelf(0)) < 30.0
    assert caplog.records == []


def test_a_slow_rank_is_waited_for(
    open_shelf: Callable[[int], Shelf], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    writing = threading.Event()

    def work() -> None:
        shelf = open_shelf(1)
        with shelf.writer() as writer:
            writing.set()
            while not caplog.records:  # until it is waited for
                time.sleep(0.01)
            time.sleep(1.0)  # beyond what it would be given if it were dead
            writer.add(IDS[1::2], np.ones((3, 4), dtype=np.float16))

    thread = threading.Thread(target=work)
    thread.start()
    writing.wait()
    reader = open_shelf(0)
    wait(reader)
    assert set(IDS[1::2]) <= reader.ids()
    assert [record.message for record in caplog.records] == [
        "waiting for rank 1: 3 vectors to come"
    ]
    thread.join()


def test_those_that_died_or_never_came_are_named(
    open_shelf: Callable[[int], Shelf], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stop = threading.Event()
    writing = threading.Event()

    def die() -> None:
        with open_shelf(1).writer():
            writing.set()
            stop.wait()

    thread = threading.Thread(target=die)
    thread.start()
    writing.wait()
    threading.Timer(0.2, stop.set).start()
    assert wait(open_shelf(0), world=3) < 30.0
    assert caplog.records[0].message == "waiting for ranks 1, 2: 4 vectors to come"
    assert caplog.records[-1].message == "ranks 1, 2 left 4 vectors; rank 0 takes them over"
    thread.join()


def test_rows_that_come_are_a_sign_of_life_where_locks_do_not_reach(
    open_shelf: Callable[[int], Shelf], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shelf, "is_written", lambda *_: False)
    monkeypatch.setattr(other_processes, "START_SECONDS", 4.0)

    def work() -> None:
        for name in IDS[1::2]:
            time.sleep(1.6)  # in all longer than START_SECONDS
            add(open_shelf(1), [name])

    thread = threading.Thread(target=work)
    thread.start()
    reader = open_shelf(0)
    wait(reader)
    assert set(IDS[1::2]) <= reader.ids()
    thread.join()
