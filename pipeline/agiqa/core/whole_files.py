"""Files that are whole or not there, after a kill, a power cut or a full disk, too.

Written aside, fsynced, then renamed: the usual recipe of databases (SQLite's "atomic commit", LWN
"Ensuring data reaches disk"). A name shows either the old content or the new one, never a part.
"""

import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from agiqa.core.errors import AgiqaError, printable

PARTIAL = ".partial"  # ends the name of what is not in its place yet


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable (a no-op where folders cannot be opened: Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write, which replaces `path` atomically and durably at the end; OSError.

    It is written under a new hidden name, which `agiqa cache gc` frees where a kill has left it.

    Raises:
        AgiqaError: no regular file is there, but a device, a pipe or a folder.
    """
    path = replaceable(path)
    aside = path.with_name(f".{path.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")
    try:
        with aside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def replaceable(path: Path) -> Path:
    """Find the file that writing `path` replaces: of a link the one it leads to.

    A link to a write-protected file is replaced itself, since that may be one of DVC's cache.

    Raises:
        AgiqaError: no regular file is there, but a device, a pipe or a folder.
    """
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    try:
        mode = path.stat().st_mode
    except OSError:  # nothing there, or nowhere to be: who opens it says which
        return target
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
        raise AgiqaError(
            f"{printable(path)}: expected a file to write or nothing, found {what}, which stays as "
            "it is: choose another file"
        )
    return target if mode & 0o222 else path


def require_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before any work is done for it.

    Raises:
        AgiqaError: its folder is not there or takes no files, or no regular file is there.
    """
    folder = replaceable(path).parent
    if not folder.exists():
        raise AgiqaError(
            f"{printable(path)}: expected the folder {printable(folder)}, found none: make it"
        )
    _require_files_in(folder, path, "file")


def require_writable_folder(folder: Path) -> None:
    """Refuse a folder that can neither be made nor filled, before any work is done for it.

    Raises:
        AgiqaError: it, or what is there of its path, takes no files.
    """
    whole = folder.absolute()
    present = next(path for path in (whole, *whole.parents) if path.exists())
    _require_files_in(present, folder, "folder")


def _require_files_in(folder: Path, path: Path, what: str) -> None:
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise AgiqaError(
            f"{printable(path)}: cannot write there ({error.strerror}): choose another {what}"
        ) from error


def write_file(path: Path, *parts: bytes | bytearray | memoryview) -> None:
    """Replace `path` by `parts`, one after the other, atomically and durably; OSError."""
    with whole_file(path) as file:
        for part in parts:
            file.write(part)


def write_whole(path: Path, content: bytes) -> None:
    """Replace `path`, its folder made where it is missing; AgiqaError where the disk refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content)
    except OSError as error:
        raise AgiqaError(
            f"cannot write {printable(path)}: {error.strerror}; it was left as it was"
        ) from error
