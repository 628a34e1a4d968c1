"""Files of the ledger that hold nothing valid: what killed writers left, chunks without a row.

`agiqa cache gc` frees them. Each is removed under the lock of its section, and only if it still
holds nothing then: what a writer makes of it meanwhile stays. Valid rows never move, so a stop at
any moment leaves a store that reads as before.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from agiqa.core.errors import AgiqaError
from agiqa.store.chunks import ROWS_A_CHUNK
from agiqa.store.durable import STALE_SECONDS, disk_errors, sync_folder
from agiqa.store.ledger.journal import check_journal
from agiqa.store.ledger.lock import writer_lock, writer_of
from agiqa.store.ledger.section import ARRAY, Section
from agiqa.store.ledger.section_files import PARTIAL, section_files
from agiqa.store.ledger.shelf import Shelf
from agiqa.store.own_files import size_of


@dataclass(frozen=True)
class Orphan:
    """Something that can go."""

    path: Path  # a file, or a folder with all that is in it
    why: str
    size: int  # bytes


def orphans_of_shelf(folder: Path) -> tuple[list[Orphan], list[str]]:
    """What can go in the shelf in `folder`; and the sections that are passed over, in words.

    AgiqaError where the shelf is damaged: then nothing in it is touched.
    """
    found: list[Orphan] = []
    busy: list[str] = []
    for section in Shelf.at(folder).sections().values():
        with disk_errors("read", section.journal.path):
            damaged = check_journal(section.journal.path).damaged
        if writer := writer_of(section.folder):
            busy.append(f"{section.folder}: being written by {writer}")
        elif damaged:  # their rows are still in the chunks
            busy.append(f"{section.folder}: damaged journal; run `agiqa cache verify` first")
        else:
            found += _orphans_of_section(section)
    return found, busy


def _orphans_of_section(section: Section) -> Iterator[Orphan]:
    files = section_files(section.folder)
    for path in files.partial:
        yield Orphan(path, "left by a stopped writer", size_of(path))
    with disk_errors("read", section.journal.path):
        section.journal.refresh()
    held = {row.position // ROWS_A_CHUNK for row in section.journal.rows.values()}
    for chunk, path in files.chunks.items():
        if chunk not in held:
            yield Orphan(path, "chunk without a valid row", size_of(path))


def remove_orphans(folder: Path, chosen: list[Orphan]) -> list[Orphan]:
    """Remove those of `chosen` in the shelf in `folder` that still hold nothing; says which.

    LockedError where a section has a writer by now.
    """
    removed: list[Orphan] = []
    wanted = {orphan.path for orphan in chosen}
    for section in Shelf.at(folder).sections().values():
        inside = [
            path for path in wanted if path.parent in (section.folder, section.folder / ARRAY)
        ]
        if not inside:
            continue
        with writer_lock(section.folder), disk_errors("free space in", section.folder):
            for orphan in list(_orphans_of_section(section)):
                if orphan.path in inside:
                    orphan.path.unlink()
                    removed.append(orphan)
            for parent in {path.parent for path in inside}:
                sync_folder(parent)
    return removed


def leftovers(folder: Path) -> list[Orphan]:
    """Hidden .partial files and folders in `folder` that killed processes left an hour ago or more.

    Such a name is of something that was never moved into its place.
    """
    found = []
    with disk_errors("read", folder):
        for path in sorted(folder.glob(f".*{PARTIAL}")):
            if time.time() - path.lstat().st_mtime > STALE_SECONDS:
                found.append(Orphan(path, "left by a stopped process", size_of(path)))
    return found


def remove_leftovers(chosen: list[Orphan]) -> list[Orphan]:
    """Remove files and folders that `leftovers` found; says which."""
    for orphan in chosen:
        with disk_errors("remove", orphan.path):
            if orphan.path.is_dir() and not orphan.path.is_symlink():
                shutil.rmtree(orphan.path)
            else:
                orphan.path.unlink(missing_ok=True)
    return chosen


def remove_shelf(folder: Path) -> None:
    """Remove a whole shelf; LockedError where it is being written, and then it stays whole.

    It vanishes at once, under a hidden name, so that a stop leaves no half of it; what is left
    then is one of the `leftovers`.
    """
    aside = folder.with_name(f".{folder.name}.removed{PARTIAL}")
    with ExitStack() as locks:
        for section in Shelf.at(folder).sections().values():
            locks.enter_context(writer_lock(section.folder))
        with disk_errors("remove", folder):
            if aside.exists():
                shutil.rmtree(aside)
            folder.rename(aside)
            sync_folder(folder.parent)
    with disk_errors("remove", aside):
        shutil.rmtree(aside)


def require_no_stranger(folder: Path) -> None:
    """AgiqaError where strangers' files lie in the shelf's folder; they must not go with it."""
    sections = Shelf.at(folder).sections().values()
    known = {path for section in sections for path in (section.folder, section.folder / ARRAY)}
    foreign = [path for section in sections for path in section_files(section.folder).foreign]
    foreign += [path for path in folder.iterdir() if path.is_dir() and path not in known]
    if foreign:
        raise AgiqaError(
            f"{folder}: expected files of agiqa alone, found {foreign[0].name}; move it away"
        )
