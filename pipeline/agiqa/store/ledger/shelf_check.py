"""Checking a shelf: every journal line, every word of metadata, every chunk that holds rows.

`agiqa cache verify` reads through here. It takes no lock and changes nothing, so a shelf may be
written meanwhile. `repair_shelf` makes what is bad absent, under the lock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.store.array_metadata import (
    metadata_damage,
    read_json,
    shelf_metadata,
    write_metadata,
)
from agiqa.store.chunks import ROWS_A_CHUNK, read_chunk
from agiqa.store.durable import disk_errors
from agiqa.store.findings import Finding, Report
from agiqa.store.ledger.chunk_rescue import rescue_chunk
from agiqa.store.ledger.journal import check_journal
from agiqa.store.ledger.lock import writer_lock, writer_of
from agiqa.store.ledger.section import ARRAY, JOURNAL, Section
from agiqa.store.ledger.section_files import section_files
from agiqa.store.ledger.shelf import Shelf
from agiqa.store.ledger.shelf_description import DESCRIPTION
from agiqa.store.ledger.shelf_reader import rows_a_read
from agiqa.store.ledger.shelf_writer import GROWTH_CHUNKS


def check_shelf(folder: Path) -> Report:
    """Read all of the shelf in `folder` and report what is wrong with it.

    AgiqaError where the disk itself cannot be read now: that says nothing about the rows.
    """
    report = Report(folder, "shelf")
    try:
        shelf = Shelf.at(folder)
        sections = shelf.sections()
    except AgiqaError as error:
        if isinstance(error.__cause__, OSError) and not isinstance(
            error.__cause__, FileNotFoundError
        ):
            raise
        found = str(error).removeprefix(f"{folder}: ").removeprefix(f"{folder}/")
        if any((folder / name).exists() for name in (DESCRIPTION, JOURNAL, ARRAY)):
            report.findings.append(Finding(folder, found))
        else:
            report.notes.append("not a shelf: nothing of agiqa is in it")
        return report
    for section in sections.values():
        with disk_errors("read", section.folder):
            _check_section(section, report)
    return report


def _check_section(section: Section, report: Report) -> None:
    writer = writer_of(section.folder)
    if writer:
        report.notes.append(f"{section.folder}: being written by {writer}")
    journal = check_journal(section.journal.path)
    report.lines += journal.lines
    for line in journal.damaged:
        named = "the rows" if line.rows is None else f"the {line.rows} rows"
        what = f"line {line.number} (byte {line.start}) fails its checksum; "
        what += "it dropped rows" if line.rows == 0 else f"{named} it named count as absent"
        report.findings.append(Finding(section.journal.path, what))
    if journal.torn and not writer:
        report.notes.append(
            f"{section.journal.path}: {journal.torn} bytes that a stopped writer left; the next "
            "one cuts them off, no finished row is in them"
        )
    files = section_files(section.folder)
    report.size += files.size
    rows = len(section.journal.rows)
    report.rows += rows
    array = section.folder / ARRAY
    if wrong := metadata_damage(array, _expected(section)):
        report.findings.append(Finding(array / "zarr.json", wrong))
    try:
        bad = bad_rows(section)
    except AgiqaError:
        if not wrong:  # the disk's own failure: that says nothing about the rows
            raise
        bad = []
    report.chunks += len({row.position // ROWS_A_CHUNK for row in section.journal.rows.values()})
    for chunk, ids in _by_chunk(section, bad).items():
        path = array / f"c.{chunk}.0"
        report.findings.append(Finding(path, _what_is_wrong(section, chunk), tuple(ids)))


def bad_rows(section: Section) -> list[str]:
    """The image ids of rows that fail their checksum or are not finite, in the array's order."""
    rows = section.journal.rows
    ordered = sorted(rows, key=lambda image_id: rows[image_id].position)
    found: list[str] = []
    step = rows_a_read(section.width, section.dtype)
    for start in range(0, len(ordered), step):
        ids = ordered[start : start + step]
        vectors, damaged = section.read(ids)
        odd = set(damaged)
        if len(odd) < len(ids):
            finite = np.isfinite(vectors).all(axis=1)
            odd.update(ids[row] for row in np.flatnonzero(~finite).tolist())
        found += [image_id for image_id in ids if image_id in odd]
    return found


def repair_shelf(folder: Path) -> list[str]:
    """Save what can be saved and make the rest absent, durably; says in words what was done.

    LockedError where a section is being written, before anything in it is touched; AgiqaError
    where the description is damaged, which cannot be made again from the rest.
    """
    done: list[str] = []
    for section in Shelf.at(folder).sections().values():
        with disk_errors("read", section.folder):
            done += _repair_section(section)
    return done


def _repair_section(section: Section) -> list[str]:
    array, done = section.folder / ARRAY, []
    damaged = check_journal(section.journal.path).damaged
    wrong = metadata_damage(array, _expected(section))
    if not damaged and not wrong and not bad_rows(section):
        return []
    with writer_lock(section.folder), disk_errors("repair", section.folder):
        section.refresh()
        if damaged:
            section.journal.forget_damaged()
            done.append(f"{section.journal.path}: damaged lines taken out: {len(damaged)}")
        if wrong:
            array.mkdir(exist_ok=True)
            write_metadata(array, _expected(section))
            done.append(f"{array / 'zarr.json'}: written anew")
        for chunk, ids in _by_chunk(section, bad_rows(section)).items():
            rows = {image_id: section.journal.rows[image_id] for image_id in ids}
            saved = rescue_chunk(array, chunk, rows, section.width, section.dtype)
            if saved:
                done.append(f"{array / f'c.{chunk}.0'}: written anew, rows saved: {saved}")
        if bad := bad_rows(section):
            section.journal.drop(bad)
            done.append(f"{section.folder}: rows dropped: {len(bad)}")
    return done


def _by_chunk(section: Section, ids: Sequence[str]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    for image_id in ids:
        found[section.journal.rows[image_id].position // ROWS_A_CHUNK].append(image_id)
    return dict(sorted(found.items()))


def _expected(section: Section) -> dict[str, object]:
    """What the array's metadata must say; its length is free, in steps of the writer's growth."""
    found, _ = read_json(section.folder / ARRAY / "zarr.json")
    step = ROWS_A_CHUNK * GROWTH_CHUNKS
    length = -(-section.journal.next_position // step) * step
    said = (found or {}).get("shape")
    said = said[0] if isinstance(said, list) and said else None
    if type(said) is int and said >= length and said % step == 0:
        length = said
    return shelf_metadata(length, section.width, section.dtype)


def _what_is_wrong(section: Section, chunk: int) -> str:
    """Why rows of a chunk cannot be read, as far as its file tells."""
    path = section.folder / ARRAY / f"c.{chunk}.0"
    whole = ROWS_A_CHUNK * section.width * np.dtype(section.dtype).itemsize + 4  # and its crc32c
    if not path.exists():
        return "is missing"
    if (size := path.stat().st_size) != whole:
        return f"has {size} of {whole} bytes"
    with disk_errors("read", path):
        if read_chunk(path, (ROWS_A_CHUNK, section.width), section.dtype) is None:
            return "fails its checksum"
    return "is whole, but rows in it are not those that the journal names, or not finite"
