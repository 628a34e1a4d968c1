"""Adding rows to a section: buffered, then made durable, then acknowledged in the journal.

Only `Section.writer` makes one, holding the section's lock. Rows gather in the last chunk, in
memory; `flush` writes that chunk whole (aside, fsync, rename) and then its journal line. A kill
between the two leaves a chunk with rows that no line names: they do not count and are overwritten.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agiqa.store.array_metadata import array_rows, shelf_metadata, write_metadata
from agiqa.store.chunks import (
    ROWS_A_CHUNK,
    Vectors,
    check_vectors,
    id_bytes,
    read_chunk,
    row_checksums,
    write_chunk,
)
from agiqa.store.durable import disk_errors
from agiqa.store.ledger.journal import Journal

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0  # an `add` this long after the last flush flushes; a kill loses no more
GROWTH_CHUNKS = 16  # the array's metadata is rewritten once in so many chunks


class ShelfWriter:
    """The one writer of a section. Not for use from several threads at once."""

    def __init__(
        self, folder: Path, journal: Journal, width: int, dtype: str, flush_seconds: float
    ) -> None:
        self._folder = folder
        self._journal = journal
        self._width = width
        self._dtype = dtype
        self._flush_seconds = flush_seconds
        self._flushed_at = time.monotonic()
        self._closed = False
        with disk_errors("open", folder):
            self._capacity = array_rows(folder / "vectors", width)
        self._chunk, self._filled = divmod(journal.next_position, ROWS_A_CHUNK)
        # (256, D): the last chunk, rows from _filled on are NaN; None until there is one
        self._block = self._open_block() if self._filled else None
        self._pending: list[str] = []  # ids of the rows of the block that are not acknowledged

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Add rows (n, D); ids already there, or repeated, are passed over: the first wins.

        Rows count only once flushed, which happens here when a chunk is full or `flush_seconds`
        have passed since the last flush. AgiqaError for another width or dtype, and for NaN or
        infinity, naming the image; then none of these rows is added. After an AgiqaError for a
        failing disk the same call may be repeated.
        """
        self._check_open()
        check_vectors(ids, vectors, (self._width,), self._dtype)
        id_bytes(ids)
        pending = set(self._pending)
        for image_id, vector in zip(ids, vectors, strict=True):
            if image_id in self._journal.rows or image_id in pending:
                continue
            if self._filled == ROWS_A_CHUNK:  # full since a flush that failed
                self.flush()
            if self._block is None:
                self._block = self._empty_block()
            self._block[self._filled] = vector
            self._filled += 1
            self._pending.append(image_id)
            pending.add(image_id)
            if self._filled == ROWS_A_CHUNK:
                self.flush()
        if time.monotonic() - self._flushed_at >= self._flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Acknowledge what was added: chunk on disk and fsynced, then its journal line, fsynced.

        AgiqaError where the disk refuses; rows acknowledged before are untouched, the others stay
        in memory for another try.
        """
        self._check_open()
        self._flushed_at = time.monotonic()
        if not self._pending or self._block is None:
            return
        start = self._filled - len(self._pending)
        new = self._block[start : self._filled]
        first = self._chunk * ROWS_A_CHUNK
        with disk_errors("write features to", self._folder):
            if self._capacity < first + ROWS_A_CHUNK:
                capacity = (self._chunk // GROWTH_CHUNKS + 1) * GROWTH_CHUNKS * ROWS_A_CHUNK
                write_metadata(
                    self._folder / "vectors", shelf_metadata(capacity, self._width, self._dtype)
                )
                self._capacity = capacity
            write_chunk(self._folder / "vectors", self._chunk, self._block)
            checksums = row_checksums(id_bytes(self._pending), new)
            self._journal.acknowledge(first + start, self._pending, checksums)
        self._pending = []
        if self._filled == ROWS_A_CHUNK:
            self._chunk, self._filled, self._block = self._chunk + 1, 0, None

    def drop(self, ids: Sequence[str]) -> None:
        """Make rows absent, durably; for rows that proved damaged. Logs how many."""
        self._check_open()
        if ids:
            logger.warning(
                "%s: %d damaged rows dropped (first: image %s); they will be computed again",
                self._folder,
                len(ids),
                ids[0],
            )
            with disk_errors("write", self._journal.path):
                self._journal.drop(ids)

    def close(self) -> None:
        """Flush, and take no more rows."""
        if not self._closed:
            try:
                self.flush()
            finally:
                self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the shelf's writer is closed; rows are added inside its `with`")

    def _empty_block(self) -> Vectors:
        return np.full((ROWS_A_CHUNK, self._width), np.nan, dtype=self._dtype)

    def _open_block(self) -> Vectors:
        """The last chunk as it must stay: its valid rows, checked, and NaN after them.

        It is rewritten as more rows come, so a damaged row in it is dropped here, with a warning.
        """
        block = self._empty_block()
        first = self._chunk * ROWS_A_CHUNK
        with disk_errors("read", self._folder):
            chunk = read_chunk(
                self._folder / "vectors" / f"c.{self._chunk}.0", block.shape, self._dtype
            )
        if chunk is not None:
            block[: self._filled] = chunk[: self._filled]
        valid = {k: row for k, row in self._journal.rows.items() if row.position >= first}
        rows = block[[row.position - first for row in valid.values()]]
        checksums = row_checksums(id_bytes(list(valid)), rows)
        pairs = zip(valid.items(), checksums, strict=True)
        self.drop([image_id for (image_id, row), crc32 in pairs if row.crc32 != crc32])
        return block
