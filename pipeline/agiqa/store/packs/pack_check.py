"""Checking a pack piece by piece: metadata, every chunk, every row, every finite number.

`agiqa cache verify` reads through here; memory does not grow with a Zarr pack. `read_pack` makes
the same promises for whole packs, but stops at the first thing that is wrong.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.store.durable import disk_errors
from agiqa.store.findings import Finding, Report
from agiqa.store.own_files import size_of
from agiqa.store.packs.pack import pack_format, read_pack_metadata
from agiqa.store.packs.pack_layout import ROWS_A_CHUNK, PackError, Stored, image_ids
from agiqa.store.rows import whole_rows


def check_pack(path: Path) -> Report:
    """Read all of the pack `path` and report what is wrong with it.

    AgiqaError where the disk itself cannot be read now.
    """
    report = Report(path, "pack")
    try:
        metadata = read_pack_metadata(path)
    except AgiqaError as error:
        if isinstance(error.__cause__, OSError):
            raise
        report.findings.append(Finding(path, str(error).removeprefix(f"{path}: ")))
        return report
    report.size = size_of(path)
    report.rows = int(metadata["rows"])
    chosen = pack_format(path)
    with disk_errors("read the pack", path):
        try:
            report.findings += [
                Finding(file, what) for file, what in chosen.structure_damage(path, metadata)
            ]
        except PackError as error:
            _raise_disk(error)
            report.findings.append(Finding(path, str(error).removeprefix(f"{path}: ")))
        if report.is_whole:
            _check_rows(path, metadata, report)
        if report.is_whole:
            report.findings += [Finding(file, what) for file, what in chosen.content_damage(path)]
    return report


def _chunks(metadata: Mapping[str, Any]) -> Iterator[slice]:
    rows = int(metadata["rows"])
    for start in range(0, rows, ROWS_A_CHUNK):
        yield slice(start, min(start + ROWS_A_CHUNK, rows))


def _check_rows(path: Path, metadata: Mapping[str, Any], report: Report) -> None:
    try:
        with pack_format(path).opened(path, metadata) as stored:
            image_ids(path, stored)
            for rows in _chunks(metadata):
                report.chunks += 1
                _check_chunk(path / "vectors", stored, rows, report)
    except PackError as error:
        _raise_disk(error)
        report.findings.append(Finding(path, str(error).removeprefix(f"{path}: ")))
    except OSError as error:
        if error.errno is not None:  # the disk's own, not HDF5's
            raise
        report.findings.append(Finding(path, "HDF5 cannot read it"))


def _check_chunk(array: Path, stored: Stored, rows: slice, report: Report) -> None:
    keys = [row.tobytes() for row in stored.image_id[rows]]
    chunk = f"chunk {rows.start // ROWS_A_CHUNK}"
    names = tuple(key.hex() for key in keys)
    if rows.start // ROWS_A_CHUNK in stored.absent:
        report.findings.append(Finding(array, f"{chunk} is missing or cut short", names))
        return
    try:
        wrong = ~whole_rows(keys, stored.read(rows), stored.row_crc32[rows])
    except PackError as error:
        _raise_disk(error)
        report.findings.append(Finding(array, f"{chunk} fails its checksum", names))
        return
    if wrong.any():
        names = tuple(names[place] for place in np.flatnonzero(wrong).tolist())
        what = f"{chunk} has rows that are missing, changed or not finite"
        report.findings.append(Finding(array, what, names))


def _raise_disk(error: PackError) -> None:
    """Raise what the disk itself said; HDF5's own errors have no number."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno != errno.ENOENT:
        raise cause
