"""Files of others, read or hashed: regular ones alone, since a pipe may never end.

A link to a regular file is one (DVC keeps data as links). Below everything that reads settings,
records and tables.
"""

import errno
import hashlib
import io
import os
import stat
from pathlib import Path
from typing import BinaryIO

MIB = 1 << 20


def open_regular(path: Path | str) -> io.BufferedReader:
    """Open a file for reading, if it is a regular one.

    Raises:
        OSError: it cannot be opened, or is a folder.
        ValueError: it is a pipe, a device or a socket.
    """
    # Without O_NONBLOCK a pipe that nobody writes to would be waited for here.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise ValueError("is a pipe or device, not a file")
    return os.fdopen(handle, "rb")


def read_bounded(file: BinaryIO, most: int) -> bytes:
    """Read all that is left of an open file, or one byte more than `most` of it.

    `read(n)` takes n bytes of memory at once, however short the file is: so as many as it has.
    """
    remaining = max(os.fstat(file.fileno()).st_size - file.tell(), 0)
    content = file.read(min(remaining, most) + 1)
    if remaining < len(content) <= most:  # it has grown since, or does not say its size
        content += file.read(most + 1 - len(content))
    return content


def read_regular(path: Path, most: int) -> bytes:
    """The bytes of a regular file.

    Args:
        path: the file, or a link to one.
        most: bytes that it may have.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, or a larger one.
    """
    with open_regular(path) as file:
        content = read_bounded(file, most)
    if len(content) > most:
        raise ValueError(f"is larger than {most / MIB:,.4g} MiB, the most that is read of it")
    return content


def file_sha256(path: Path | str) -> str:
    """Compute the sha256 of a regular file's bytes, in hexadecimal: how files are known.

    Raises:
        OSError: it cannot be read.
        ValueError: it is a pipe or a device.
    """
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
