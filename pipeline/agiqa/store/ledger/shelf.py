"""The ledger: append-only shelves of vectors that outlive every experiment and every clean-up.

`extract` adds rows here and packs them from here; DVC never sees it. One shelf holds one vector of
one extractor (one fingerprint), its rows keyed by image id, under `default_root()`:

    <extractor>-<first 16 digits of the fingerprint's digest>/
        fingerprint.json             layout version, width, dtype and the whole fingerprint
        journal.jsonl, vectors/, …   the rows of rank 0, a section (section.py)
        part-1/, part-2/, …          sections of further ranks, where several processes extracted

A shelf is the union of its sections, whichever number of processes wrote or reads them.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import platformdirs

from agiqa.core.errors import AgiqaError
from agiqa.core.urls import folder_name, is_url
from agiqa.store.chunks import DTYPES, DamagedRowsError, Vectors
from agiqa.store.durable import disk_errors
from agiqa.store.fingerprint import Fingerprint, digest
from agiqa.store.ledger.section import JOURNAL, Section, lay_out
from agiqa.store.ledger.shelf_description import (
    DESCRIPTION,
    SHORT,
    Description,
    LostDescriptionError,
    read_description,
    require_description,
    restore_description,
)
from agiqa.store.ledger.shelf_writer import FLUSH_SECONDS, ShelfWriter
from agiqa.store.own_files import require_own_folder

PIXELS = "pixels.u8"  # of decoded images, which lie beside shelves (stage2/paper/pixels.py)

logger = logging.getLogger(__name__)

_PART = re.compile(r"part-([1-9][0-9]{0,8})")


def default_root() -> Path:
    """The ledger's folder: $AGIQA_STORE, or `ledger` in the user's cache folder.

    Where $AGIQA_STORE is a URL (../shared/sharing.py), a folder for it in the user's cache folder.
    """
    if url := default_url():
        return platformdirs.user_cache_path("agiqa") / "shared" / folder_name(url)
    if chosen := os.environ.get("AGIQA_STORE"):
        return Path(chosen).expanduser()
    return own_root()


def own_root() -> Path:
    """The ledger's folder where nothing else is said."""
    return platformdirs.user_cache_path("agiqa") / "ledger"


def other_roots(root: Path) -> list[Path]:
    """The user's other ledgers: the own one, and those for URLs."""
    shared = platformdirs.user_cache_path("agiqa") / "shared"
    roots = [own_root(), *(sorted(shared.iterdir()) if shared.is_dir() else ())]
    return [path for path in roots if path.resolve() != root.resolve()]


def default_url() -> str | None:
    """The URL of the shared ledger, where $AGIQA_STORE is one."""
    chosen = os.environ.get("AGIQA_STORE", "")
    return chosen.rstrip("/") if is_url(chosen) else None


def shelf_folder(root: Path, fingerprint: Fingerprint) -> Path:
    """Where the shelf of `fingerprint` lies under `root`, whether it is there or not."""
    name = re.sub(r"[^A-Za-z0-9._]+", "-", str(fingerprint.get("extractor", "vectors")))
    return root / f"{name.strip('-.') or 'vectors'}-{digest(fingerprint)[:SHORT]}"


def find_shelves(root: Path) -> list[Path]:
    """The folders under `root`, in order: shelves, and whatever else was put there.

    Hidden ones are left out: a shelf that is being made lies in one.
    """
    if not root.exists():
        return []
    with disk_errors("read", root):
        return sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")


class Shelf:
    """One vector of one extractor; any number of readers, one writer at a time in each section."""

    def __init__(
        self, folder: Path, fingerprint: Fingerprint, width: int, dtype: str, section: int = 0
    ) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.width = width
        self.dtype = dtype
        self.section = section  # that `writer` adds to
        self._sections = {0: Section(folder, width, dtype)}  # by number, in ascending order

    @classmethod
    def open(
        cls,
        root: Path,
        fingerprint: Fingerprint,
        width: int,
        dtype: str = "float16",
        section: int = 0,
    ) -> Shelf:
        """Open the shelf of `fingerprint` under `root`, creating it where there is none.

        The folder's name starts with the fingerprint's "extractor" field, if it has one. `section`
        is where `writer` adds: processes that write at once have different ones, their rank.
        AgiqaError where the shelf on disk is of another fingerprint, width, dtype or layout.
        """
        if dtype not in DTYPES or width < 1:
            raise AgiqaError(
                f"expected a width of at least 1 and dtype {' or '.join(DTYPES)}, "
                f"found {width} and {dtype}; correct the extractor"
            )
        folder = shelf_folder(root, fingerprint)
        wanted = Description(fingerprint, width, dtype)
        with disk_errors("open or create", folder):
            if not (folder / JOURNAL).exists():
                lay_out(folder, width, dtype, {DESCRIPTION: wanted.text()})
            try:
                require_description(folder, wanted)
            except LostDescriptionError:  # the folder's name vouches for the fingerprint
                if not restore_description(folder, [fingerprint]):
                    raise
                logger.warning(
                    "%s was lost or damaged and has been written anew", folder / DESCRIPTION
                )
                require_description(folder, wanted)
        return cls(folder, fingerprint, width, dtype, section)

    @classmethod
    def at(cls, folder: Path, section: int = 0) -> Shelf:
        """Open the shelf that lies in `folder`; nothing is created.

        AgiqaError where there is none, or its description is foreign, newer or damaged.
        """
        described = read_description(folder)
        return cls(folder, described.fingerprint, described.width, described.dtype, section)

    def sections(self) -> dict[int, Section]:
        """The sections by number, those included that another process has added since."""
        self._refresh()
        return dict(self._sections)

    def ids(self) -> frozenset[str]:
        """The image ids of all valid rows, those added since by another process included."""
        self._refresh()
        return frozenset().union(*(part.journal.rows for part in self._sections.values()))

    def has(self, image_id: str) -> bool:
        """Whether a valid row for this image is there, as of the last `ids`, `read` or write."""
        return any(image_id in part.journal.rows for part in self._sections.values())

    def read(self, ids: Sequence[str]) -> Vectors:
        """Read the rows of `ids`, in that order: (N, D). Every row is checked against its checksum.

        AgiqaError where a row was never added; DamagedRowsError where one cannot be read back.
        """
        self._refresh()
        if missing := [image_id for image_id in ids if not self.has(image_id)]:
            raise AgiqaError(
                f"{self.folder}: expected rows for {len(ids)} images, found "
                f"{len(ids) - len(missing)} (first missing: {missing[0]}); run `agiqa extract`"
            )
        vectors, damaged = self._read_present(ids)
        if damaged:
            raise DamagedRowsError(
                f"{self.folder}: expected {len(ids)} whole rows, found {len(damaged)} damaged or "
                f"missing on disk (first: image {damaged[0]}); run `agiqa cache verify --repair`, "
                "then `agiqa extract`, which computes only what could not be saved",
                damaged,
            )
        return vectors

    def damaged(self) -> tuple[str, ...]:
        """Check every row; the image ids of those that no section can read back."""
        self._refresh()
        found = [name for part in self._sections.values() for name in part.damaged()]
        return tuple(self._read_present(list(dict.fromkeys(found)))[1])

    @contextmanager
    def writer(self, flush_seconds: float = FLUSH_SECONDS) -> Iterator[ShelfWriter]:
        """Write to this shelf's section alone; LockedError, within a second, names another writer.

        What was added is flushed at the end, also when the body fails or is interrupted.
        """
        if self.section not in self._sections:
            with disk_errors("open or create", folder := self.folder / f"part-{self.section}"):
                if not (folder / JOURNAL).exists():
                    lay_out(folder, self.width, self.dtype, {})
            self._refresh()
        with self._sections[self.section].writer(flush_seconds) as writer:
            yield writer

    def is_written(self, section: int) -> bool:
        """Whether a process is writing to this section now."""
        return section in self._sections and self._sections[section].is_written()

    def _refresh(self) -> None:
        """Take in what was added since, whole sections included."""
        with disk_errors("read", self.folder):
            for path in self.folder.glob(f"part-*/{JOURNAL}"):
                name = _PART.fullmatch(path.parent.name)
                if name is not None and int(name[1]) not in self._sections:
                    require_own_folder(path.parent)
                    part = Section(path.parent, self.width, self.dtype)
                    self._sections[int(name[1])] = part
        self._sections = dict(sorted(self._sections.items()))
        for part in self._sections.values():
            part.refresh()

    def _read_present(self, ids: Sequence[str]) -> tuple[Vectors, list[str]]:
        """Rows of `ids` (N, D), each from the first section that has it whole; and the damaged."""
        vectors = np.full((len(ids), self.width), np.nan, dtype=self.dtype)
        left = list(range(len(ids)))
        for part in self._sections.values():
            there = [place for place in left if ids[place] in part.journal.rows]
            if not there:
                continue
            vectors[there], damaged = part.read([ids[place] for place in there])
            whole = {ids[place] for place in there}.difference(damaged)
            left = [place for place in left if ids[place] not in whole]
        return vectors, [ids[place] for place in left]
