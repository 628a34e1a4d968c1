"""The ledger: shelves of vectors that outlive every experiment and every clean-up.

`extract` adds rows here and packs them from here; DVC never sees it. One shelf holds one vector of
one extractor (one fingerprint), its rows keyed by image id, under `shelf_folders.default_root()`:

    <extractor>-<first 16 digits of the fingerprint's digest>/
        fingerprint.json                           layout, width, dtype, the whole fingerprint
        segments/<sha256>-<rows>.safetensors       rows (segments.py)
        writer.lock, owner.json                    who writes: a courtesy (lock.py)

A segment is written once, whole (temporary name, fsync, rename, fsync of the folder), and never
changed. What is there is valid: a row that fits its checksum, whichever process on whichever
machine wrote it; one that does not is absent, and its neighbours stay. A row that is there twice
does no harm. So there is nothing to agree about: no journal, no order, no lock that anything rests
on. Small segments are merged into large ones (merging.py), and a segment is removed only when all
its rows lie durably in a greater one. To merge two ledgers, to share one or to keep a copy is to
copy files.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.core.whole_files import sync_folder
from agiqa.store.durable import disk_errors, folder_aside, sync_tree
from agiqa.store.fingerprint import Fingerprint
from agiqa.store.ledger.lock import writer_lock
from agiqa.store.ledger.merging import merge_small
from agiqa.store.ledger.segment_rows import SegmentRows
from agiqa.store.ledger.segments import SEGMENTS, LocalSegments, rows_a_segment
from agiqa.store.ledger.shelf_folders import (
    DESCRIPTION,
    Description,
    LostDescriptionError,
    find_shelves,
    read_description,
    require_no_layout_1,
    require_same_shelf,
    restore_description,
    shelf_folder,
    stated_in,
)
from agiqa.store.rows import DTYPES, DamagedRowsError, Vectors, check_vectors, id_bytes

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0  # an `add` this long after the last flush flushes; a kill loses no more


class Shelf:
    """One vector of one extractor; any number of readers and writers.

    An object is not for use from several threads at once; each may have its own.
    """

    def __init__(self, folder: Path, described: Description, rank: int = 0) -> None:
        self.folder, self.described = folder, described
        self.fingerprint = described.fingerprint
        self.width, self.dtype = described.width, described.dtype
        self.rank = rank  # of the process that writes
        self.files = LocalSegments(folder)
        self.rows = SegmentRows(self.files, described.kind)

    @classmethod
    def open(
        cls, root: Path, fingerprint: Fingerprint, width: int, dtype: str = "float16", rank: int = 0
    ) -> Shelf:
        """Open the shelf of `fingerprint` under `root`, creating it where there is none.

        The folder's name starts with the fingerprint's "extractor" field, if it has one. `rank` is
        that of this process among several that write at once.
        AgiqaError where the shelf on disk is of another fingerprint, width, dtype or layout.
        """
        if dtype not in DTYPES or width < 1:
            raise AgiqaError(
                f"expected a width of at least 1 and dtype {' or '.join(DTYPES)}, "
                f"found {width} and {dtype}; correct the extractor"
            )
        folder = shelf_folder(root, fingerprint)
        wanted = Description(fingerprint, width, dtype)
        require_no_layout_1(folder)
        with disk_errors("open or create", folder):
            if not folder.exists():
                for path in find_shelves(root) if root.is_dir() else ():
                    require_no_layout_1(path)
                _lay_out(folder, wanted)
            try:
                stated = stated_in(folder)
            except LostDescriptionError:  # the folder's name vouches for the fingerprint
                if not restore_description(folder, fingerprint, wanted):
                    raise
                logger.warning(
                    "%s was lost or damaged and has been written anew", folder / DESCRIPTION
                )
                stated = stated_in(folder)
            require_same_shelf(stated, wanted, where=str(folder))
        return cls(folder, wanted, rank)

    @classmethod
    def at(cls, folder: Path) -> Shelf:
        """Open the shelf that lies in `folder`; nothing is created.

        AgiqaError where there is none, or its description is foreign, newer or damaged.
        """
        require_no_layout_1(folder)
        return cls(folder, read_description(folder))

    def ids(self) -> frozenset[str]:
        """The image ids of all rows, those added since by another process included."""
        return self.refreshed().ids()

    def refreshed(self) -> SegmentRows:
        """The rows, those added since by another process included; `id in rows` asks for one."""
        self.rows.refresh()
        return self.rows

    def read(self, ids: Sequence[str]) -> Vectors:
        """Read the rows of `ids`, in that order: (N, D). Every row is checked against its checksum.

        AgiqaError where a row was never added; DamagedRowsError where one cannot be read back.
        """
        vectors, damaged = self.refreshed().read(ids)
        if damaged:
            raise DamagedRowsError(
                f"{self.folder}: expected {len(ids)} whole rows, found {len(damaged)} damaged or "
                f"missing on disk (first: image {damaged[0]}); run `agiqa cache verify --repair`, "
                "then `agiqa extract`, which computes only what could not be saved",
                damaged,
            )
        return vectors

    def damaged(self, ids: Sequence[str] | None = None) -> tuple[str, ...]:
        """Check the rows of `ids`, or all; the image ids of those that cannot be read back."""
        rows = self.refreshed()
        checked_ids = sorted(rows.ids()) if ids is None else [name for name in ids if name in rows]
        whole_ids = {name for names, _ in rows.blocks(checked_ids) for name in names}
        return tuple(name for name in checked_ids if name not in whole_ids)

    def checksums(self) -> dict[str, int]:
        """The CRC-32 of each row by its id."""
        return self.refreshed().checksums()

    def blocks(self, wanted: Collection[str]) -> Iterator[tuple[Sequence[str], Vectors]]:
        """Whole rows of the wanted ids, (n, D) at a time, as they lie in the segments."""
        return self.rows.blocks(wanted)

    @contextmanager
    def writer(self, flush_seconds: float = FLUSH_SECONDS) -> Iterator[ShelfWriter]:
        """Write to this shelf; LockedError, within a second, names another writer of this rank.

        What was added is flushed at the end, also when the body fails or is interrupted.
        """
        with writer_lock(self.folder, self.rank):
            writer = ShelfWriter(self.refreshed(), flush_seconds)
            try:
                yield writer
            except BaseException:
                try:
                    writer.close()
                except AgiqaError as error:
                    logger.warning("%s", error)  # the body's own failure is the one to show
                raise
            writer.close()
            merge_small(self.rows)

    def merge(self) -> int:
        """Merge all small segments; how many went."""
        return merge_small(self.rows, everything=True)


class ShelfWriter:
    """Adds rows to a shelf, a segment for each flush. Not for use from several threads at once."""

    def __init__(self, rows: SegmentRows, flush_seconds: float) -> None:
        self.rows = rows
        self._flush_seconds = flush_seconds
        self._flushed_at = time.monotonic()
        self._closed = False
        kind = rows.kind
        self._waiting: dict[str, None] = {}  # ids of rows that are not on the disk yet, in order
        self._vectors = np.empty((rows_a_segment(kind), kind.width), kind.dtype)  # theirs, and room

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Add rows (n, D); ids already there, or repeated, are passed over: the first wins.

        Rows count only once flushed, which happens here when there are many or `flush_seconds`
        have passed since the last flush. AgiqaError for another width or dtype, and for NaN or
        infinity, naming the image; then none of these rows is added. After an AgiqaError for a
        failing disk the same call may be repeated.
        """
        if self._closed:
            raise RuntimeError("the shelf's writer is closed; rows are added inside its `with`")
        check_vectors(ids, vectors, (self.rows.kind.width,), self.rows.kind.dtype)
        id_bytes(ids)
        for row, row_id in enumerate(ids):
            if row_id not in self._waiting and row_id not in self.rows:
                if len(self._waiting) == len(self._vectors):
                    self.flush()
                self._vectors[len(self._waiting)] = vectors[row]
                self._waiting[row_id] = None
        is_full = len(self._waiting) == len(self._vectors)
        if is_full or time.monotonic() - self._flushed_at >= self._flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Write what was added: one segment, durable when this returns.

        AgiqaError where the disk refuses; rows written before are untouched, the others stay in
        memory for another try.
        """
        self._flushed_at = time.monotonic()
        if self._waiting:
            self.rows.add(list(self._waiting), self._vectors[: len(self._waiting)])
            self._waiting.clear()

    def close(self) -> None:
        """Flush, and take no more rows."""
        try:
            self.flush()
        finally:
            self._closed = True


def _lay_out(folder: Path, described: Description) -> None:
    """Make an empty shelf aside and move it to `folder`; another process may be first."""
    with folder_aside(folder) as aside:
        new = aside / "shelf"
        (new / SEGMENTS).mkdir(parents=True)
        (new / DESCRIPTION).write_text(described.text(), encoding="utf-8")
        sync_tree(new)
        try:
            new.rename(folder)
        except OSError:
            if not (folder / DESCRIPTION).exists():
                raise
        sync_folder(folder.parent)
