"""The files of a store, as those of strangers may be: regular ones in real folders, or refused.

A pack or a ledger from elsewhere may hold links to files outside it, pipes that never end, devices,
sockets, folders that contain themselves. None of them is opened. One kind of link is followed, as
DVC makes it (`cache.type symlink`): to a file of a DVC cache, which is named by its own MD5. The
store's own path may be a link, too: whoever names it has made it.
"""

import errno
import json
import os
import re
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

from agiqa.core.errors import AgiqaError
from agiqa.core.regular_files import read_bounded
from agiqa.core.trees import parse_json

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
