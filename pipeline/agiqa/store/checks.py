"""Checking shelves and packs piece by piece, and mending shelves: `agiqa cache verify`.

Every checksum, chunk, row and finite number is looked at; memory does not grow with a store.
A check takes no lock and changes nothing, so a shelf may be written meanwhile. A repair writes the
whole rows of a damaged segment into a new one before it removes the old; what is lost is computed
again. `read_pack` promises the same of what it reads, but stops at the first thing that is wrong.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.core.whole_files import PARTIAL
from agiqa.store.durable import disk_errors
from agiqa.store.ledger.lock import LOCK_NAMES, sole_writer, writer_of
from agiqa.store.ledger.merging import checked_rows, damage, is_whole
from agiqa.store.ledger.segment_rows import Segment, VanishedError
from agiqa.store.ledger.segments import SEGMENTS, rows_of
from agiqa.store.ledger.shelf import Shelf
from agiqa.store.ledger.shelf_folders import DESCRIPTION, is_layout_1
from agiqa.store.own_files import size_of
from agiqa.store.packs.pack import open_pack, pack_format, read_pack_metadata
from agiqa.store.packs.pack_rows import PackRows


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a store."""

    path: Path  # the file
    problem: str  # in words, to be read after the path
    image_ids: tuple[str, ...] = ()  # of the rows that are bad by it, where they are known


@dataclass
class Report:
    """What the check of one store came to."""

    store: Path
    kind: str  # shelf or pack
    rows: int = 0  # that were checked
    segments: int = 0  # of a shelf, that were read
    chunks: int = 0  # of a pack's vectors, likewise
    size: int = 0  # bytes of the store
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # worth a line, and nothing wrong
    repaired: list[str] = field(default_factory=list)  # what was done about the findings
    refused: str = ""  # why nothing was
    is_mended: bool = False  # whether nothing is wrong any more

    @property
    def is_whole(self) -> bool:
        """Say whether nothing is wrong in the store."""
        return not self.findings


def check_shelf(folder: Path) -> Report:
    """Read all of the shelf in `folder` and report what is wrong with it.

    AgiqaError where the disk itself cannot be read now: that says nothing about the rows.
    """
    report = Report(folder, "shelf")
    try:
        shelf = Shelf.at(folder)
        report.rows = len(shelf.ids())
    except AgiqaError as error:
        if isinstance(error.__cause__, OSError):
            raise
        message = str(error).removeprefix(f"{folder}: ").removeprefix(f"{folder}/")
        if (folder / DESCRIPTION).exists() or (folder / SEGMENTS).exists() or is_layout_1(folder):
            report.findings.append(Finding(folder, message))
        else:
            report.notes.append("not a shelf: nothing of agiqa is in it")
        return report
    if writer := writer_of(folder):
        report.notes.append(f"{folder}: being written by {writer}")
    report.size = size_of(folder)
    for name, why in sorted(shelf.rows.unusable.items()):
        report.findings.append(Finding(shelf.files.folder / name, f"has {why}"))
    for segment in shelf.rows.segments().values():
        with suppress(VanishedError):  # merged meanwhile: its rows are in a larger one
            report.segments += 1
            problem, bad = damage(shelf.rows, segment)
            if problem:
                path = shelf.files.folder / segment.name
                report.findings.append(Finding(path, problem, tuple(bad)))
    report.notes += [f"{path}: nothing of agiqa; move it away" for path in strangers(folder)]
    return report


def repair_shelf(folder: Path) -> list[str]:
    """Save what can be saved and remove the rest, durably; says in words what was done.

    LockedError where the shelf is being written; AgiqaError where the description is damaged, or
    files are not this shelf's: those are left as they are.
    """
    shelf = Shelf.at(folder)
    shelf.rows.refresh()
    done, damaged = list[str](), list[Segment]()
    for segment in shelf.rows.segments().values():
        with suppress(VanishedError):
            damaged += [segment] if damage(shelf.rows, segment)[0] else []
    cut = [name for name, why in shelf.rows.unusable.items() if "too few" in why]
    if damaged or cut:
        with sole_writer(folder):
            for segment in damaged:
                with suppress(VanishedError):
                    done.append(_repair_segment(shelf, segment))
            shelf.files.remove(cut)
            done += [f"{shelf.files.folder / name}: removed, no row is left in it" for name in cut]
            shelf.rows.refresh()
    if foreign := sorted(shelf.rows.unusable):
        raise AgiqaError(
            f"{shelf.files.folder / foreign[0]}: expected rows of this shelf, found "
            f"{shelf.rows.unusable[foreign[0]]}; move it away"
        )
    return done


def _repair_segment(shelf: Shelf, segment: Segment) -> str:
    """Write a damaged segment's whole rows anew, all of them, and then remove it."""
    saved, named = 0, segment.layout.rows
    for ids, vectors, whole in checked_rows(shelf.rows, segment):
        kept = [ids[row] for row in np.flatnonzero(whole).tolist()]
        if kept:
            shelf.rows.add(kept, vectors[whole])
            saved += len(kept)
    path = shelf.files.folder / segment.name
    if saved < named or not is_whole(shelf.rows, segment):
        shelf.files.remove([segment.name])
    shelf.rows.refresh()
    dropped = f", dropped: {named - saved}" if saved < named else ""
    return f"{path}: written anew, rows saved: {saved}{dropped}"


def strangers(folder: Path) -> list[Path]:
    """List what lies in a shelf's folder and is not agiqa's; hidden files are left alone."""
    with disk_errors("read", folder):
        paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        foreign = [
            path
            for path in paths
            if path.name not in (DESCRIPTION, SEGMENTS)
            and not LOCK_NAMES.fullmatch(path.name)
            and not path.name.endswith(PARTIAL)
        ]
        inside = folder / SEGMENTS
        if inside.is_dir() and not inside.is_symlink():
            names = sorted(inside.iterdir())
            foreign += [p for p in names if not rows_of(p.name) and not p.name.startswith(".")]
    return foreign


def check_pack(path: Path) -> Report:
    """Read all of the pack `path` and report what is wrong with it.

    AgiqaError where the disk itself cannot be read now.
    """
    report = Report(path, "pack")
    try:
        metadata, module = read_pack_metadata(path), pack_format(path)
        with disk_errors("read the pack", path):
            report.size, report.rows = size_of(path), int(metadata["rows"])
            _check_rows(open_pack(path), report)
            if report.is_whole:
                content = module.content_damage(path, metadata)
                report.findings = [Finding(file, problem) for file, problem in content]
    except AgiqaError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno is not None:
            raise
        report.findings.append(Finding(path, str(error).removeprefix(f"{path}: ")))
    return report


def _check_rows(pack: PackRows, report: Report) -> None:
    array = pack.path / "vectors"
    for number, rows in enumerate(pack.chunk_rows()):
        report.chunks += 1
        _, whole = pack.read(rows)
        names = tuple(pack.image_ids[rows.start + row] for row in np.flatnonzero(~whole))
        if pack.chunks[number] is None:
            report.findings.append(Finding(array, f"chunk {number} is missing or cut short", names))
        elif names:
            problem = f"chunk {number} has rows that are missing, changed or not finite"
            report.findings.append(Finding(array, problem, names))
