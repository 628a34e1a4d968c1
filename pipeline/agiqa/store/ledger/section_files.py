"""The files of a section as they lie on the disk: chunks, leftovers of killed writers, bytes.

What a listing shows and what can be freed both start here; nothing is opened or changed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from agiqa.store.durable import disk_errors
from agiqa.store.ledger.lock import LOCK_NAME, OWNER_NAME
from agiqa.store.ledger.section import ARRAY, JOURNAL
from agiqa.store.ledger.shelf_description import DESCRIPTION
from agiqa.store.own_files import size_of

PARTIAL = ".partial"  # ends the name of what `durable` has not moved into place yet
_CHUNK = re.compile(r"c\.(\d+)\.0")
_OWN = {DESCRIPTION, JOURNAL, LOCK_NAME, OWNER_NAME}


@dataclass(frozen=True)
class SectionFiles:
    """What is in a section's folder; parts of a shelf are sections of their own."""

    chunks: dict[int, Path]  # by number: chunk k has rows 256 k to 256 k + 255
    partial: tuple[Path, ...]  # that a killed writer left
    foreign: tuple[Path, ...]  # of nobody here
    size: int  # bytes of all files
    written: float  # when the journal last grew, in seconds since 1970


def section_files(folder: Path) -> SectionFiles:
    """List the files of the section in `folder`; AgiqaError where it cannot be read."""
    chunks: dict[int, Path] = {}
    partial, foreign = [], []
    size, written = 0, 0.0
    with disk_errors("read", folder):
        inside = [path for path in folder.iterdir() if path.is_file()]
        array = folder / ARRAY
        if array.is_dir():
            inside += list(array.iterdir())
        for path in sorted(inside):
            size += size_of(path)
            number = _CHUNK.fullmatch(path.name) if path.parent == array else None
            if path.name.endswith(PARTIAL):
                partial.append(path)
            elif number is not None:
                chunks[int(number[1])] = path
            elif path not in (array / "zarr.json", *(folder / name for name in _OWN)):
                foreign.append(path)
        if (folder / JOURNAL).exists():
            written = (folder / JOURNAL).stat().st_mtime
    return SectionFiles(chunks, tuple(partial), tuple(foreign), size, written)
