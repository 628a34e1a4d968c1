"""Checking a pack piece by piece: metadata, every chunk, every row, every finite number.

`agiqa cache verify` reads through here; memory does not grow with the pack. `read_pack` makes the
same promises for what it reads, but stops at the first thing that is wrong.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.store.durable import disk_errors
from agiqa.store.findings import Finding, Report
from agiqa.store.own_files import size_of
from agiqa.store.packs.pack import open_pack, pack_format, read_pack_metadata
from agiqa.store.packs.pack_rows import PackRows


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
        if pack.stored.chunks[number] is None:
            report.findings.append(Finding(array, f"chunk {number} is missing or cut short", names))
        elif names:
            problem = f"chunk {number} has rows that are missing, changed or not finite"
            report.findings.append(Finding(array, problem, names))
