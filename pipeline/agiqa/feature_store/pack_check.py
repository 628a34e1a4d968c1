"""Checking a pack piece by piece: metadata, every chunk, every row, every finite number.

`agiqa cache verify` reads through here; memory does not grow with a Zarr pack. `read_pack` makes
the same promises for whole packs, but stops at the first thing that is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.errors import AgiqaError
from agiqa.feature_store.chunks import ROWS_A_CHUNK, Vectors, row_checksums
from agiqa.feature_store.durable import disk_errors
from agiqa.feature_store.findings import Finding, Report
from agiqa.feature_store.pack import pack_format, read_pack_metadata
from agiqa.feature_store.pack_layout import damaged
from agiqa.feature_store.section_files import size_of


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
        if path.is_dir():  # before its arrays: they are read by what their metadata says
            _add_structure(report, chosen.structure_damage(path, metadata))
        if report.is_whole:
            _check_rows(path, metadata, report)
        if report.is_whole and not path.is_dir():
            _add_structure(report, chosen.structure_damage(path, metadata))
    return report


def whole_rows(path: Path) -> Iterator[tuple[list[str], Vectors]]:
    """Image ids and vectors (n, P, D) of the rows that are whole, chunk by chunk; others left out.

    AgiqaError where the metadata or the image ids are damaged, so that no row can be trusted.
    """
    report = Report(path, "pack")
    metadata = read_pack_metadata(path)
    with disk_errors("read the pack", path), pack_format(path).open_arrays(path) as arrays:
        ids, checksums = (_whole(path, arrays, name, report) for name in ("image_id", "row_crc32"))
        if ids is None or checksums is None:
            raise damaged(path, report.findings[0].path.name + " that cannot be read")
        for start in range(0, int(metadata["rows"]), ROWS_A_CHUNK):
            keys = [row.tobytes() for row in ids[start : start + ROWS_A_CHUNK]]
            try:
                found = np.asarray(arrays["vectors"][start : start + len(keys)])
            except Exception as error:  # each codec has its own ways to reject bytes
                _raise_disk(error)
                continue
            fits = np.array(row_checksums(keys, found), dtype=np.uint32)
            places = np.flatnonzero(fits == checksums[start : start + len(keys)]).tolist()
            yield [keys[place].hex() for place in places], found[places]


def _add_structure(report: Report, found: list[tuple[Path, str]]) -> None:
    report.findings += [Finding(file, what) for file, what in found]


def _check_rows(path: Path, metadata: Mapping[str, Any], report: Report) -> None:
    rows = int(metadata["rows"])
    try:
        with pack_format(path).open_arrays(path) as arrays:
            ids, checksums = (
                _whole(path, arrays, name, report) for name in ("image_id", "row_crc32")
            )
            if ids is None or checksums is None:
                return
            for start in range(0, rows, ROWS_A_CHUNK):
                stop = min(start + ROWS_A_CHUNK, rows)
                report.chunks += 1
                _check_chunk(
                    path, arrays["vectors"], ids[start:stop], checksums[start:stop], start, report
                )
    except OSError as error:
        if error.errno is not None:  # the disk's own, not HDF5's
            raise
        report.findings.append(Finding(path, "HDF5 cannot read it"))
    except KeyError as error:
        report.findings.append(Finding(path, f"has no array {error}"))


def _whole(path: Path, arrays: Mapping[str, Any], name: str, report: Report) -> Vectors | None:
    """One of the two small arrays, or None and a finding."""
    try:
        return np.asarray(arrays[name][...])
    except (KeyError, FileNotFoundError):
        raise
    except Exception as error:  # each codec has its own ways to reject bytes
        _raise_disk(error)
        report.findings.append(Finding(_inside(path, name), "a chunk fails its checksum"))
        return None


def _check_chunk(
    path: Path, vectors: Any, ids: Vectors, checksums: Vectors, start: int, report: Report
) -> None:
    keys = [row.tobytes() for row in ids]
    chunk = f"chunk {start // ROWS_A_CHUNK}"
    try:
        found = np.asarray(vectors[start : start + len(keys)])
    except Exception as error:  # each codec has its own ways to reject bytes
        _raise_disk(error)
        names = tuple(key.hex() for key in keys)
        what = f"{chunk} fails its checksum"
        report.findings.append(Finding(_inside(path, "vectors"), what, names))
        return
    wrong = np.array(row_checksums(keys, found), dtype=np.uint32) != checksums
    wrong |= ~np.isfinite(found).all(axis=(1, 2))
    if wrong.any():
        names = tuple(keys[place].hex() for place in np.flatnonzero(wrong).tolist())
        what = f"{chunk} has rows that are missing, changed or not finite"
        report.findings.append(Finding(_inside(path, "vectors"), what, names))


def _raise_disk(error: Exception) -> None:
    """Raise what the disk itself said; HDF5's own errors have no number."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _inside(path: Path, name: str) -> Path:
    return path / name
