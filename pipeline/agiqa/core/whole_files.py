"""Files that are whole or not there, after a kill, a power cut or a full disk, too.

Written aside, fsynced, then renamed: the usual recipe of databases (SQLite's "atomic commit", LWN
"Ensuring data reaches disk"). A name shows either the old content or the new one, never a part.
"""

import os
import secrets
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
    """
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


def require_folder(path: Path) -> None:
    """Refuse a file in a folder that is not there, before any work is done for it.

    Raises:
        AgiqaError: the folder is not there.
    """
    if not path.parent.is_dir():
        raise AgiqaError(
            f"{printable(path)}: expected the folder {printable(path.parent)}, found none: make it"
        )


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
        raise AgiqaError(f"cannot write {path}: {error.strerror}; it was left as it was") from error
