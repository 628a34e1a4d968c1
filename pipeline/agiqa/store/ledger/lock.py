"""One writer for each section of a shelf: a lock that the kernel holds, and a note of who has it.

The kernel drops the lock when its owner dies, however it dies, so no lock is ever stale. The note
(`owner.json`) serves the error message alone: a stage orphaned by a killed `dvc` is named by its
process id, host and start. Readers take no lock.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import filelock

from agiqa.core.errors import AgiqaError
from agiqa.core.trees import parse_json
from agiqa.store.durable import disk_errors
from agiqa.store.own_files import read_own, require_own_file

WAIT_SECONDS = 0.3  # before a second writer is refused
LOCK_NAME, OWNER_NAME = "writer.lock", "owner.json"


class LockedError(AgiqaError):
    """Another process writes here."""


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the only right to write in `folder`; LockedError, within a second, names the owner."""
    _require_plain(folder)
    lock = filelock.FileLock(folder / LOCK_NAME)
    try:
        lock.acquire(timeout=WAIT_SECONDS, poll_interval=0.05)
    except filelock.Timeout:
        raise LockedError(
            f"{folder}: expected to be the only writer, found {_owner(folder)}; "
            "wait until it ends or stop it, then run the same command again"
        ) from None
    except OSError as error:
        with disk_errors("lock", folder):
            raise error
    note = folder / OWNER_NAME
    try:
        with disk_errors("write", note):
            since = datetime.now(UTC).isoformat(timespec="seconds")
            owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
            note.write_text(json.dumps(owner), encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether some process is the writer in `folder` now. Nothing is made or written."""
    if not (folder / LOCK_NAME).exists():
        return False
    _require_plain(folder)
    lock = filelock.FileLock(folder / LOCK_NAME)
    with disk_errors("lock", folder):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            return True
        lock.release()
    return False


def writer_of(folder: Path) -> str | None:
    """Who writes in `folder` now, in words; None where nobody does.

    For listings: nothing is touched where there is no note, and where the lock cannot be tried (a
    store that may only be read) the note is believed.
    """
    if not (folder / OWNER_NAME).is_file():
        return None
    try:
        locked = is_locked(folder)
    except AgiqaError:
        locked = True
    return _owner(folder) if locked else None


def _require_plain(folder: Path) -> None:
    """StrangeFileError where a stranger put links in the places that a lock empties and writes."""
    for name in (LOCK_NAME, OWNER_NAME):
        with disk_errors("lock", folder), suppress(FileNotFoundError):
            require_own_file(folder / name, links=False)


def _owner(folder: Path) -> str:
    """Describe the lock's owner; its note may be a moment behind the lock itself."""
    for _ in range(5):
        with suppress(OSError, ValueError, KeyError, TypeError):
            owner = parse_json(read_own(folder / OWNER_NAME, most=4096), strict=True)
            pid, host, since = int(owner["pid"]), str(owner["host"]), str(owner["since"])
            return f"process {pid} on {host[:64]}, writing since {since[:32]}"
        time.sleep(0.05)
    return "another process, which left no note of itself"
