"""The sha256 of files, remembered with their size and times, so that what stays is read once.

As git's index does it: a file of the same size and times is the same file; one that changed within
two seconds of being hashed is hashed again, since file systems count time in steps. The memory is
of this machine (absolute paths), lies beside the images table and may be deleted at any time.
"""

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from agiqa.core.errors import printable
from agiqa.core.regular_files import file_sha256
from agiqa.core.whole_files import write_whole

FILE = "file_digests.txt"  # a line a file: sha256, size, two times, path
MOST_FILES = 30_000  # of a folder: 10,000 splits of three files
STEP = 2 * 10**9  # ns; coarser than any file system's clock
State = tuple[int, int, int]  # size, and the times of the last change of content and of anything


class FileDigests:
    """What is known of the files that a table was made from."""

    def __init__(self, folder: Path) -> None:
        """Read the memory of the data set's `folder`; a damaged one is as good as none."""
        self._path = folder / FILE
        self._noted: dict[str, tuple[State, str]] = {}
        try:
            for line in self._path.read_text("utf-8").split("\n")[:-1]:
                digest, size, content, change, path = line.split(" ", 4)
                self._noted[path] = ((int(size), int(content), int(change)), digest)
        except (OSError, ValueError):
            self._noted = {}

    def sha256(self, paths: Sequence[Path], workers: int | None = None) -> list[str | None]:
        """Give the digest of each file or folder of files; None where none can be read."""
        with ThreadPoolExecutor(workers, thread_name_prefix="hash-files") as pool:
            return list(pool.map(self._file_or_folder, map(os.path.abspath, paths)))

    def _file_or_folder(self, path: str) -> str | None:
        before = state(path)
        if before is None:
            return self._folder(Path(path))
        noted = self._noted.get(path)
        if noted is not None and noted[0] == before:
            return noted[1]
        try:
            digest = file_sha256(path)
        except (OSError, ValueError):
            return None
        self._noted[path] = (before, digest)
        return digest

    def _folder(self, folder: Path) -> str | None:
        """Hash names and digests of a folder's files, of splits as somebody released them."""
        files = sorted(islice(folder.rglob("*"), MOST_FILES + 1)) if folder.is_dir() else []
        if not 0 < len(files) <= MOST_FILES:
            return None
        lines = (f"{file.relative_to(folder)} {self._file_or_folder(str(file))}" for file in files
                 if file.is_file())  # fmt: skip
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    def remember(self, paths: Sequence[Path], digests: Sequence[str], since: int) -> None:
        """Take over digests that somebody else made of files which did not change `since` (ns)."""
        for path, digest in zip(map(os.path.abspath, paths), digests, strict=True):
            now = state(path)
            if now is not None and max(now[1:]) < since:
                self._noted[path] = (now, digest)

    def save(self, paths: Iterable[Path]) -> None:
        """Keep what is known of these files, and of no others."""
        settled = time.time_ns() - STEP
        lines = []
        for path in dict.fromkeys(map(os.path.abspath, paths)):
            if path in self._noted and printable(path) == path:
                noted_state, digest = self._noted[path]
                if max(noted_state[1:]) < settled:
                    lines.append(" ".join((digest, *map(str, noted_state), path)) + "\n")
        write_whole(self._path, "".join(lines).encode())


def state(path: str) -> State | None:
    """Look up size and times of a regular file; None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
