"""Checking a shelf and mending it: `agiqa cache verify`.

A check takes no lock and changes nothing, so a shelf may be written meanwhile. A repair writes the
whole rows of a damaged segment into a new one before it removes the old; what is lost is computed
again.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.core.whole_files import PARTIAL
from agiqa.store.durable import disk_errors
from agiqa.store.findings import Finding, Report
from agiqa.store.ledger.description import DESCRIPTION, is_layout_1
from agiqa.store.ledger.lock import LOCK_NAMES, sole_writer, writer_of
from agiqa.store.ledger.merging import checked_rows, damage, is_whole
from agiqa.store.ledger.segment_folders import SEGMENTS
from agiqa.store.ledger.segment_rows import Segment, VanishedError
from agiqa.store.ledger.segments import rows_of
from agiqa.store.ledger.shelf import Shelf
from agiqa.store.own_files import size_of


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
    if damaged:
        with sole_writer(folder):
            for segment in damaged:
                with suppress(VanishedError):
                    done.append(_repair_segment(shelf, segment))
    cut = [name for name, why in shelf.rows.unusable.items() if "too few" in why]
    if cut:
        with sole_writer(folder):
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
    if path.name not in shelf.files.sizes() or not is_whole(shelf.rows, segment) or saved < named:
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
