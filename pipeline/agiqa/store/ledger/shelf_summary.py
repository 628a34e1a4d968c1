"""A shelf in figures: rows, chunk files, bytes, its writers; for listings. No row is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agiqa.store.fingerprint import Fingerprint
from agiqa.store.ledger.lock import writer_of
from agiqa.store.ledger.section_files import section_files
from agiqa.store.ledger.shelf import Shelf


@dataclass(frozen=True)
class SectionSummary:
    """One section of a shelf."""

    folder: Path
    rows: int  # that its journal says are valid
    chunks: int  # files of vectors
    size: int  # bytes
    written: float  # seconds since 1970
    writer: str | None  # who writes now, in words
    journal: Path


@dataclass(frozen=True)
class ShelfSummary:
    """A shelf and its sections."""

    folder: Path
    fingerprint: Fingerprint
    width: int
    dtype: str
    rows: int  # of different images
    sections: dict[int, SectionSummary]  # by rank


def summarise_shelf(folder: Path) -> ShelfSummary:
    """The shelf in `folder`, in figures; AgiqaError where it is foreign or damaged."""
    shelf = Shelf.at(folder)
    sections = {}
    for number, section in shelf.sections().items():
        files = section_files(section.folder)
        sections[number] = SectionSummary(
            folder=section.folder,
            rows=len(section.journal.rows),
            chunks=len(files.chunks),
            size=files.size,
            written=files.written,
            writer=writer_of(section.folder),
            journal=section.journal.path,
        )
    rows = len(shelf.ids())
    return ShelfSummary(folder, shelf.fingerprint, shelf.width, shelf.dtype, rows, sections)
