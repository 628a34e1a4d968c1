"""The ledger: append-only shelves of vectors that outlive every experiment and every clean-up.

`extract` adds rows here and packs them from here; DVC never sees it. One shelf holds one vector of
one extractor (one fingerprint), its rows keyed by image id, under `default_root()`:

    <extractor>-<first 16 digits of the fingerprint's digest>/
        fingerprint.json   layout version, width, dtype and the whole fingerprint
        journal.jsonl      which rows are valid (journal.py)
        vectors/           Zarr v3 array, NaN where nothing was written (chunks.py)
        writer.lock, owner.json

The array's length is a capacity, grown 4,096 rows at a time; only the journal says what is valid.
A row is whole and checksummed, or absent.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs

from agiqa.errors import AgiqaError
from agiqa.feature_store.chunks import (
    DTYPES,
    ROWS_A_CHUNK,
    DamagedRowsError,
    Vectors,
    create_array,
)
from agiqa.feature_store.durable import disk_errors, folder_aside, sync_folder, sync_tree
from agiqa.feature_store.fingerprint import Fingerprint, digest, plain, require_same
from agiqa.feature_store.journal import Journal
from agiqa.feature_store.lock import writer_lock
from agiqa.feature_store.shelf_reader import CHUNKS_A_READ, read_rows
from agiqa.feature_store.shelf_writer import FLUSH_SECONDS, ShelfWriter

logger = logging.getLogger(__name__)

LAYOUT = 1
_DESCRIPTION = "fingerprint.json"


def default_root() -> Path:
    """The ledger's folder: $AGIQA_STORE, or `ledger` in the user's cache folder."""
    if chosen := os.environ.get("AGIQA_STORE"):
        return Path(chosen).expanduser()
    return platformdirs.user_cache_path("agiqa") / "ledger"


class Shelf:
    """One vector of one extractor; any number of readers, one writer at a time."""

    def __init__(self, folder: Path, fingerprint: Fingerprint, width: int, dtype: str) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.width = width
        self.dtype = dtype
        self.journal = Journal(folder / "journal.jsonl")

    @classmethod
    def open(
        cls, root: Path, fingerprint: Fingerprint, width: int, dtype: str = "float16"
    ) -> Shelf:
        """Open the shelf of `fingerprint` under `root`, creating it where there is none.

        The folder's name starts with the fingerprint's "extractor" field, if it has one.
        AgiqaError where the shelf on disk is of another fingerprint, width, dtype or layout.
        """
        if dtype not in DTYPES or width < 1:
            raise AgiqaError(
                f"expected a width of at least 1 and dtype {' or '.join(DTYPES)}, "
                f"found {width} and {dtype}; correct the extractor"
            )
        name = re.sub(r"[^A-Za-z0-9._]+", "-", str(fingerprint.get("extractor", "vectors")))
        folder = root / f"{name.strip('-.') or 'vectors'}-{digest(fingerprint)[:16]}"
        shelf = cls(folder, fingerprint, width, dtype)
        with disk_errors("open or create", folder):
            if not (folder / _DESCRIPTION).exists():
                shelf._create()
            shelf._verify_description()
        return shelf

    def ids(self) -> frozenset[str]:
        """The image ids of all valid rows, those added since by another process included."""
        self._refresh()
        return frozenset(self.journal.rows)

    def has(self, image_id: str) -> bool:
        """Whether a valid row for this image is there, as of the last `ids`, `read` or write."""
        return image_id in self.journal.rows

    def read(self, ids: Sequence[str]) -> Vectors:
        """Read the rows of `ids`, in that order: (N, D). Every row is checked against its checksum.

        AgiqaError where a row was never added; DamagedRowsError where one cannot be read back.
        """
        self._refresh()
        rows = self.journal.rows
        if missing := [image_id for image_id in ids if image_id not in rows]:
            raise AgiqaError(
                f"{self.folder}: expected rows for {len(ids)} images, found "
                f"{len(ids) - len(missing)} (first missing: {missing[0]}); run `agiqa extract`"
            )
        vectors, damaged = self._read_valid(ids)
        if damaged:
            raise DamagedRowsError(
                f"{self.folder}: expected {len(ids)} whole rows, found {len(damaged)} damaged or "
                f"missing on disk (first: image {damaged[0]}); drop them (Shelf.repair) and run "
                "`agiqa extract`, which computes only those again",
                damaged,
            )
        return vectors

    def damaged(self) -> tuple[str, ...]:
        """Check every row; the image ids of those that cannot be read back."""
        self._refresh()
        rows = self.journal.rows
        ordered = sorted(rows, key=lambda image_id: rows[image_id].position)
        found: list[str] = []
        step = CHUNKS_A_READ * ROWS_A_CHUNK
        for start in range(0, len(ordered), step):
            found += self._read_valid(ordered[start : start + step])[1]
        return tuple(found)

    def repair(self) -> tuple[str, ...]:
        """Drop every damaged row, so that it counts as absent; logs and returns which."""
        with self.writer() as writer:
            damaged = self.damaged()
            writer.drop(damaged)
        return damaged

    @contextmanager
    def writer(self, flush_seconds: float = FLUSH_SECONDS) -> Iterator[ShelfWriter]:
        """Write to the shelf alone; LockedError, within a second, names another writer.

        What was added is flushed at the end, also when the body fails or is interrupted.
        """
        with writer_lock(self.folder):
            self._refresh()
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

    def _refresh(self) -> None:
        with disk_errors("read", self.journal.path):
            self.journal.refresh()

    def _read_valid(self, ids: Sequence[str]) -> tuple[Vectors, list[str]]:
        """Rows of `ids` (N, D), and the ids of those among them that are damaged."""
        rows = [self.journal.rows[image_id] for image_id in ids]
        with disk_errors("read", self.folder):
            return read_rows(self.folder / "vectors", ids, rows, self.width, self.dtype)

    def _create(self) -> None:
        """Lay out an empty shelf aside and move it into place; another process may be first."""
        with folder_aside(self.folder) as aside:
            new = aside / "shelf"
            new.mkdir()
            shape, dtype = (0, self.width), DTYPES[self.dtype]
            create_array(new / "vectors", shape, dtype, fill_value=float("nan"))
            (new / "journal.jsonl").touch()
            text = json.dumps(self._description(), indent=2) + "\n"
            (new / _DESCRIPTION).write_text(text, encoding="utf-8")
            sync_tree(new)
            try:
                new.rename(self.folder)
            except OSError:
                if not (self.folder / _DESCRIPTION).exists():
                    raise
            sync_folder(self.folder.parent)

    def _description(self) -> dict[str, Any]:
        return {
            "format": "agiqa-ledger",
            "layout": LAYOUT,
            "width": self.width,
            "dtype": self.dtype,
            "fingerprint": plain(self.fingerprint),
        }

    def _verify_description(self) -> None:
        path = self.folder / _DESCRIPTION
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            layout = int(found["layout"])
        except (ValueError, KeyError, TypeError) as error:
            raise AgiqaError(
                f"{path}: expected the shelf's description, found {type(error).__name__}; "
                "restore the file or move the folder away"
            ) from error
        if layout > LAYOUT:
            raise AgiqaError(
                f"{path}: expected layout {LAYOUT}, found the newer {layout}; upgrade agiqa"
            )
        advice = "choose another store folder (AGIQA_STORE), or move this one away"
        require_same(self._description(), found, where=str(self.folder), advice=advice)
