"""A courtesy among writers: a lock that the kernel holds, and a note of who has it.

Two extractions of the same images would compute everything twice, so the second is refused; each
of a launcher's processes has a lock of its own. The kernel drops a lock when its owner dies, so
none is ever stale. No row rests on it: where locks do not reach, or lie, writers only do more than
they need. The note (`owner.json`) serves messages: a stage orphaned by a killed `dvc` is named by
its process id, host and start. Readers take no lock.
"""

import errno
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import filelock

from agiqa.core.errors import AgiqaError
from agiqa.core.trees import parse_json
from agiqa.store.files import disk_errors, read_own, require_own_file

WAIT_SECONDS = 0.3  # before a second writer is refused
LOCK_NAMES = re.compile(r"(writer(-[1-9][0-9]{0,8})?\.lock|owner(-[1-9][0-9]{0,8})?\.json)")
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of file systems that have none


class LockedError(AgiqaError):
    """Another process writes to this ledger."""


@contextmanager
def writer_lock(folder: Path, rank: int = 0) -> Iterator[None]:
    """Be the one writer of this rank in `folder`; LockedError, within a second, names the owner."""
    lock, note = _files(folder, rank)
    file_lock = filelock.FileLock(lock)
    try:
        file_lock.acquire(timeout=WAIT_SECONDS, poll_interval=0.05)
    except filelock.Timeout:
        raise _locked(folder, note, f" of rank {rank}" if rank else "") from None
    except (OSError, NotImplementedError) as error:
        code = error.errno if isinstance(error, OSError) else errno.ENOSYS
        if code not in _NO_LOCKS:
            with disk_errors("lock", folder):
                raise
    try:
        with disk_errors("write", note):
            since = datetime.now(UTC).isoformat(timespec="seconds")
            owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
            note.write_text(json.dumps(owner), encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)
        file_lock.release()


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Be the one writer of `folder`, whatever ranks there are; LockedError as `writer_lock`."""
    with writer_lock(folder):
        for note in folder.glob("owner-*.json"):
            if _is_held(note):
                raise _locked(folder, note)
        yield


def _locked(folder: Path, note: Path, of_rank: str = "") -> LockedError:
    return LockedError(
        f"{folder}: expected to be the only writer{of_rank}, found {_owner(note)}; "
        "wait until it ends or stop it, then run the same command again"
    )


def writer_of(folder: Path) -> str | None:
    """Who writes in `folder` now, in words; None where nobody does.

    For listings: nothing is touched where there is no note, and where the lock cannot be tried (a
    store that may only be read) the note is believed.
    """
    with disk_errors("read", folder):
        notes = [path for path in folder.glob("owner*.json") if LOCK_NAMES.fullmatch(path.name)]
    for note in sorted(notes):
        try:
            held = _is_held(note)
        except AgiqaError:
            held = True
        if held and note.is_file():
            return _owner(note)
    return None


def _is_held(note: Path) -> bool:
    """Whether some process has the lock beside this note now. Nothing is made or written."""
    digits = note.stem.partition("-")[2]
    lock, _ = _files(note.parent, int(digits) if digits.isdecimal() else 0)
    if not lock.exists():
        return False
    file_lock = filelock.FileLock(lock)
    with disk_errors("lock", note.parent):
        try:
            file_lock.acquire(timeout=0)
        except filelock.Timeout:
            return True
        file_lock.release()
    return False


def _files(folder: Path, rank: int) -> tuple[Path, Path]:
    """Name a rank's lock and note.

    StrangeFileError where a stranger put links in the places that a lock empties and writes.
    """
    suffix = f"-{rank}" if rank else ""
    paths = folder / f"writer{suffix}.lock", folder / f"owner{suffix}.json"
    for path in paths:
        with disk_errors("lock", folder), suppress(FileNotFoundError):
            require_own_file(path, links=False)
    return paths


def _owner(note: Path) -> str:
    """Describe a lock's owner; its note may be a moment behind the lock itself."""
    for _ in range(5):
        with suppress(OSError, ValueError, KeyError, TypeError):
            owner = parse_json(read_own(note, most=4096), strict=True)
            pid, host, since = int(owner["pid"]), str(owner["host"]), str(owner["since"])
            return f"process {pid} on {host[:64]}, writing since {since[:32]}"
        time.sleep(0.05)
    return "another process, which left no note of itself"
