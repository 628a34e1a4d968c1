"""A section of a shelf: the rows that one writer added, with their own chunks, journal and lock.

    journal.jsonl              which rows are valid (journal.py)
    vectors/                   Zarr v3 array, NaN where nothing was written (../chunks.py)
    writer.lock, owner.json    who writes (lock.py)

The array's length is a capacity, grown 4,096 rows at a time; only the journal says what is valid.
A row is whole and checksummed, or absent. `Shelf` unites the sections.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from agiqa.core.errors import AgiqaError
from agiqa.store.chunks import DTYPES, Vectors, create_array
from agiqa.store.durable import disk_errors, folder_aside, sync_folder, sync_tree
from agiqa.store.ledger.journal import Journal
from agiqa.store.ledger.lock import is_locked, writer_lock
from agiqa.store.ledger.shelf_reader import read_rows, rows_a_read
from agiqa.store.ledger.shelf_writer import ShelfWriter
from agiqa.store.own_files import require_own_folder

logger = logging.getLogger(__name__)

JOURNAL, ARRAY = "journal.jsonl", "vectors"


class Section:
    """Rows of one writer at a time, in `folder`; any number of readers."""

    def __init__(self, folder: Path, width: int, dtype: str) -> None:
        self.folder = folder
        self.width = width
        self.dtype = dtype
        self.journal = Journal(folder / JOURNAL)

    def refresh(self) -> None:
        """Take in what was added since, by another process too."""
        with disk_errors("read", self.journal.path):
            self.journal.refresh()
            with suppress(FileNotFoundError):  # then its rows are damaged, and named
                require_own_folder(self.folder / ARRAY)

    def read(self, ids: Sequence[str]) -> tuple[Vectors, list[str]]:
        """Vectors (N, D) of `ids`, which the journal has, and the ids of the damaged ones."""
        rows = [self.journal.rows[image_id] for image_id in ids]
        with disk_errors("read", self.folder):
            return read_rows(self.folder / ARRAY, ids, rows, self.width, self.dtype)

    def damaged(self) -> tuple[str, ...]:
        """Check every row; the image ids of those that cannot be read back."""
        self.refresh()
        rows = self.journal.rows
        ordered = sorted(rows, key=lambda image_id: rows[image_id].position)
        found: list[str] = []
        step = rows_a_read(self.width, self.dtype)
        for start in range(0, len(ordered), step):
            found += self.read(ordered[start : start + step])[1]
        return tuple(found)

    def is_written(self) -> bool:
        """Whether a process holds this section's lock now."""
        return self.folder.is_dir() and is_locked(self.folder)

    @contextmanager
    def writer(self, flush_seconds: float) -> Iterator[ShelfWriter]:
        """Write here alone, as `Shelf.writer` says."""
        with writer_lock(self.folder):
            self.refresh()
            writer = ShelfWriter(self.folder, self.journal, self.width, self.dtype, flush_seconds)
            try:
                yield writer
            except BaseException:
                try:
                    writer.close()
                except AgiqaError as error:
                    logger.warning("%s", error)  # the body's own failure is the one to show
                raise
            writer.close()


def lay_out(folder: Path, width: int, dtype: str, files: dict[str, str]) -> None:
    """Make an empty section aside, with `files` (name: text), and move it to `folder`.

    Another process may be first; then its section stays.
    """
    with folder_aside(folder) as aside:
        new = aside / "section"
        new.mkdir()
        create_array(new / ARRAY, (0, width), DTYPES[dtype], fill_value=float("nan"))
        (new / JOURNAL).touch()
        for name, text in files.items():
            (new / name).write_text(text, encoding="utf-8")
        sync_tree(new)
        try:
            new.rename(folder)
        except OSError:
            if not all((folder / name).exists() for name in (JOURNAL, *files)):
                raise
        sync_folder(folder.parent)
