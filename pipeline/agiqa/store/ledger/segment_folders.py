"""Where a shelf's segments lie: a folder here, by plain calls, or one at a URL, over fsspec.

Both give the same four things: sizes by name, parts of files, a new file whole, a file's removal.
"""

import itertools
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from operator import itemgetter
from pathlib import Path

from agiqa.core.urls import shown
from agiqa.core.whole_files import sync_folder, write_file
from agiqa.store.durable import disk_errors
from agiqa.store.ledger.segments import rows_of
from agiqa.store.own_files import open_own, require_own_file, require_own_folder
from agiqa.store.shared.remote import Remote

SEGMENTS = "segments"  # the folder's name in a shelf's
Part = tuple[str, int, int]
"""A segment's name, and from which byte to which."""


class LocalSegments:
    """A folder of this machine; AgiqaError for whatever the disk refuses, links and pipes."""

    def __init__(self, shelf: Path) -> None:
        self.folder = shelf / SEGMENTS

    @property
    def where(self) -> str:
        """Name the folder, as messages show it."""
        return str(self.folder.parent)

    def sizes(self) -> dict[str, int]:
        """Give the bytes of each segment by name."""
        sizes: dict[str, int] = {}
        with disk_errors("read", self.folder), suppress(FileNotFoundError):
            require_own_folder(self.folder)
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    if rows_of(entry.name):
                        with suppress(FileNotFoundError):
                            status = entry.stat(follow_symlinks=False)
                            if not stat.S_ISREG(status.st_mode):  # a link that DVC makes, or none
                                status = require_own_file(Path(entry.path)).stat()
                            sizes[entry.name] = status.st_size
        return sizes

    def read_parts(self, parts: Sequence[Part]) -> list[bytes | None]:
        """Read each part, less where a file is shorter; None where there is no such file."""
        blocks: list[bytes | None] = []
        with disk_errors("read", self.folder):
            for name, of_file in itertools.groupby(parts, itemgetter(0)):
                spans = [part[1:] for part in of_file]
                try:
                    with open_own(self.folder / name) as file:
                        size = os.fstat(file.fileno()).st_size
                        for start, stop in spans:  # no memory is taken for what it has not
                            file.seek(start)
                            blocks.append(file.read(max(0, min(stop, size) - start)))
                except FileNotFoundError:
                    blocks += [None] * len(spans)
        return blocks

    def write(self, name: str, parts: Sequence[bytes | memoryview]) -> None:
        """Put a new segment there: temporary name, fsync, rename, fsync of the folder."""
        with disk_errors("write features to", self.folder):
            if not self.folder.exists():
                self.folder.mkdir(exist_ok=True)
                sync_folder(self.folder.parent)
            require_own_folder(self.folder)
            write_file(self.folder / name, *parts)

    def remove(self, names: Sequence[str]) -> None:
        """Take segments away whose rows lie durably in others."""
        with disk_errors("free space in", self.folder):
            for name in names:
                (self.folder / name).unlink(missing_ok=True)
            sync_folder(self.folder)


class RemoteSegments:
    """A folder at a URL; RemoteError for whatever the server refuses."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote

    @property
    def where(self) -> str:
        """Name the folder, as messages show it."""
        return shown(self.remote.url)

    def sizes(self) -> dict[str, int]:
        """Give the bytes of each segment by name."""
        files = self.remote.files(SEGMENTS)
        return {name: file.size for name, file in files.items() if rows_of(name)}

    def read_parts(self, parts: Sequence[Part]) -> list[bytes | None]:
        """Read each part; None where there is no such file."""
        remote_parts = [(f"{SEGMENTS}/{name}", start, stop) for name, start, stop in parts]
        return self.remote.read_parts(remote_parts)

    def write(self, name: str, parts: Sequence[bytes | memoryview]) -> None:
        """Put a new segment there; on object stores it appears at once or not at all."""
        self.remote.write(f"{SEGMENTS}/{name}", b"".join(parts))

    def remove(self, names: Sequence[str]) -> None:
        """Nothing at a URL is ever removed: who may write there need not be allowed to delete."""


SegmentFolder = LocalSegments | RemoteSegments
