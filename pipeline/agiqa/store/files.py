"""Files and folders of a store: durable ones, and none of a stranger's making.

Folders survive a kill, a power cut and a full disk: filled aside, fsynced, then renamed, as
core/whole_files.py does it with files. Failures of the disk become one AgiqaError line.

A pack or a ledger from elsewhere may hold links to files outside it, pipes that never end, devices,
sockets, folders that contain themselves. None of them is opened. One kind of link is followed, as
DVC makes it (`cache.type symlink`): to a file of a DVC cache, which is named by its own MD5. The
store's own path may be a link, too: whoever names it has made it.
"""

import ctypes
import errno
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

import filelock

from agiqa.core.errors import AgiqaError
from agiqa.core.regular_files import read_bounded
from agiqa.core.trees import parse_json
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

_DVC = re.compile(r".*/(files/md5/)?[0-9a-f]{2}/[0-9a-f]{30}")
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
    stat.S_IFREG: "a file",
}
# Beside the check before: what is put there after it is neither followed nor waited for.
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


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


class StrangeFileError(AgiqaError):
    """Something else than a regular file, or a real folder, inside a store."""


def open_own(path: Path) -> BufferedReader:
    """Open a file of a store to read its bytes.

    Raises:
        StrangeFileError: it is a link, pipe, device, socket or folder.
        OSError: it is not there or cannot be opened.
    """
    return os.fdopen(os.open(require_own_file(path), os.O_RDONLY | _FLAGS), "rb")


def require_own_file(path: Path, links: bool = True) -> Path:
    """The path, or with `links` that in DVC's cache to which it links; errors as `open_own`."""
    mode = path.lstat().st_mode
    if links and stat.S_ISLNK(mode) and _DVC.fullmatch(target := os.path.realpath(path)):
        path = Path(target)
        mode = path.lstat().st_mode
    if not stat.S_ISREG(mode):
        raise StrangeFileError(_strange(path, mode, "file"))
    return path


def read_own(path: Path, most: int) -> bytes:
    """The bytes of a file of a store.

    Raises:
        ValueError: it has more than `most`.
        StrangeFileError, OSError: as `open_own`.
    """
    with open_own(path) as file:
        data = read_bounded(file, most)
    if len(data) <= most:
        return data
    raise ValueError(f"more than {most:,} bytes")


def require_own_folder(path: Path) -> None:
    """StrangeFileError where there is something else than a real folder; OSError as `open_own`."""
    if not stat.S_ISDIR(mode := path.lstat().st_mode):
        raise StrangeFileError(_strange(path, mode, "folder"))


def sizes_in(folder: Path, is_ours: Callable[[str], object]) -> dict[str, int]:
    """Map each file of a store's folder whose name is ours to its bytes.

    Raises:
        StrangeFileError, OSError: as `open_own`, for a file and the folder itself.
    """
    require_own_folder(folder)
    sizes: dict[str, int] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_ours(entry.name):
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if not stat.S_ISREG(status.st_mode):  # a link that DVC makes, or none
                        status = require_own_file(Path(entry.path)).stat()
                    sizes[entry.name] = status.st_size
    return sizes


def _strange(path: Path, mode: int, wanted: str) -> str:
    return (
        f"{path}: expected a {wanted}, found {_KINDS.get(stat.S_IFMT(mode), 'something else')}, "
        "which agiqa does not open; get the store anew from where it was made, or remove it"
    )


def size_of(path: Path) -> int:
    """Sum the bytes of a file, or of all files below a folder; of links only DVC's count.

    What vanishes meanwhile, or cannot be followed, counts as nothing, too.
    """
    size, pending = 0, [os.path.realpath(path)]
    while pending:
        name = pending.pop()
        try:
            mode = os.lstat(name).st_mode
            if stat.S_ISDIR(mode):
                with os.scandir(name) as entries:
                    pending += [entry.path for entry in entries]
            elif not stat.S_ISLNK(mode) or _DVC.fullmatch(os.path.realpath(name)):
                size += Path(name).stat().st_size
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG):
                raise
    return size


def spelled_json(data: bytes) -> dict[str, Any]:
    r"""The JSON object in a file of agiqa; ValueError says in words what is wrong.

    Refused too is what reads well but is not spelled as Python spells it: there a bit has flipped
    that changes no value (`\u00e9` and `\u00E9` are the same letter).
    """
    try:
        text = data.decode("ascii")
        tree = parse_json(text, strict=True)
    except UnicodeDecodeError:
        raise ValueError("does not parse: letters that are not ASCII") from None
    except ValueError as error:
        raise ValueError(f"does not parse: {error}") from error
    if not isinstance(tree, dict):
        raise ValueError("is no JSON object")
    if re.sub(r"\s", "", text) != re.sub(r"\s", "", json.dumps(tree)):
        raise ValueError("is spelled in a way in which nothing of agiqa is")
    return tree
