"""Folders that survive a kill, a power cut and a full disk: filled aside, fsynced, then renamed.

As core/whole_files.py does it with files. Failures of the disk become one AgiqaError line.
"""

import ctypes
import errno
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from agiqa.core.errors import AgiqaError
from agiqa.core.whole_files import PARTIAL, sync_folder

STALE_SECONDS = 3600.0  # a temporary folder this old was left by a killed process
_ALIVE = "alive.lock"  # in a temporary folder, held by its process

_ADVICE = {
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some of your quota and run the same command again",
    errno.EROFS: "make the folder writable or choose another one",
    errno.EACCES: "make the folder accessible or choose another one",
    errno.EPERM: "make the folder accessible or choose another one",
}


@contextmanager
def disk_errors(doing: str, path: Path) -> Iterator[None]:
    """Turn an OSError into one AgiqaError line: what failed, why, what to do."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "check the disk and run the same command again")
        reason = os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
        raise AgiqaError(
            f"expected to {doing} {path}, found: {reason}; {advice} (finished rows are safe)"
        ) from error


def sync_tree(folder: Path) -> None:
    """Make every file and name below `folder` durable."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            with (Path(parent) / name).open("rb+") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))


@contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path`, on the same disk, and remove it with what is left in it.

    Folders that killed processes left behind are removed as well, once they are an hour old. One
    whose process lives is locked and stays, whatever clocks say: a folder that is removed while it
    is filled would be put in place without what it had.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix, suffix = f".{path.name}.", PARTIAL
    for stale in path.parent.glob(f"{prefix}*{suffix}"):
        with suppress(OSError):  # filelock.Timeout is one, too
            if time.time() - stale.stat().st_mtime > STALE_SECONDS:
                with filelock.FileLock(stale / _ALIVE, timeout=0):
                    shutil.rmtree(stale, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=path.parent))
    try:
        with filelock.FileLock(aside / _ALIVE, timeout=0):
            yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def put_in_place(new: Path, path: Path) -> None:
    """Move the finished file or folder `new` to `path`; what was there ends up at `new` or gone.

    Replacing a folder is one atomic exchange on Linux. Elsewhere it takes two renames, and only
    a kill between the two leaves `path` absent (the pack is then simply written again).
    """
    if not new.is_dir() or not (path.exists() or path.is_symlink()):
        new.replace(path)
    elif not _exchange(new, path):
        old = new.with_name(new.name + ".old")
        path.rename(old)
        try:
            new.rename(path)
        except OSError:
            old.rename(path)
            raise
    sync_folder(path.parent)


_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # <fcntl.h>, <linux/fs.h>


def _exchange(a: Path, b: Path) -> bool:
    """Swap two names atomically; False where kernel, C library or file system cannot."""
    renameat2: Callable[..., int] | None = None
    if sys.platform == "linux":
        renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    names = os.fsencode(a), os.fsencode(b)
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV):
        return False
    raise OSError(code, os.strerror(code), str(b))
