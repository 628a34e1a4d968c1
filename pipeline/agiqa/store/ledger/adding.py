"""Adding rows that were computed elsewhere to a shelf: other ledgers' shelves, and packs.

The first row stays: what is there already is passed over, so that a merge may be stopped and
repeated at any moment. Whether it is there with the same numbers, checksums say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.store.chunks import Vectors, id_bytes, row_checksums
from agiqa.store.fingerprint import Fingerprint
from agiqa.store.ledger.shelf import Shelf, shelf_folder
from agiqa.store.ledger.shelf_description import DESCRIPTION
from agiqa.store.ledger.shelf_reader import rows_a_read


@dataclass(frozen=True)
class Added:
    """What became of one vector's rows."""

    rows: int  # that were offered
    added: int = 0
    there: int = 0  # already, with the same numbers
    kept: tuple[str, ...] = ()  # ids of those there already with other numbers, which stay
    damaged: tuple[str, ...] = ()  # ids of those that cannot be read, and are not there either
    refused: str = ""  # why none was taken


def checksums(shelf: Shelf) -> dict[str, int]:
    """Row id and CRC-32 of every valid row, section by section as they lie on the disk."""
    found: dict[str, int] = {}
    for part in shelf.sections().values():
        rows = part.journal.rows
        for row_id in sorted(rows, key=lambda each: rows[each].position):
            found.setdefault(row_id, rows[row_id].crc32)
    return found


def compare(offered: Mapping[str, int], there: Mapping[str, int]) -> tuple[int, tuple[str, ...]]:
    """Of rows by checksum: how many are there already, and ids of those with other numbers."""
    kept = tuple(name for name, crc32 in offered.items() if there.get(name, crc32) != crc32)
    return sum(name in there for name in offered) - len(kept), kept


def add_shelf(source: Shelf, target: Shelf) -> Added:
    """Add the rows of `source` that `target` lacks, a few chunks at a time.

    AgiqaError where another process writes to the target, or the disk fails; what was added by
    then stays, and the same call goes on.
    """
    offered = checksums(source)
    there, kept = compare(offered, checksums(target))
    left = set(offered).difference(target.ids())
    if left:
        with target.writer() as writer:
            left -= target.ids()  # of another process, until the lock was ours
            new = len(left)
            for part in source.sections().values():
                mine = [name for name in offered if name in left and name in part.journal.rows]
                step = rows_a_read(source.width, source.dtype)
                for start in range(0, len(mine), step):
                    ids = mine[start : start + step]
                    vectors, damaged = part.read(ids)
                    bad = set(damaged)
                    if len(bad) == len(ids):
                        continue
                    good = np.isfinite(vectors).all(axis=1)
                    good &= np.array([name not in bad for name in ids])
                    whole = [name for name, fine in zip(ids, good, strict=True) if fine]
                    writer.add(whole, vectors[good])
                    left.difference_update(whole)
        added = new - len(left)
    else:
        added = 0
    damaged_ids = tuple(name for name in offered if name in left)
    return Added(len(offered), added, there, kept, damaged_ids)


def require_fits(
    root: Path, source: Path, fingerprint: Fingerprint, width: int, dtype: str
) -> None:
    """AgiqaError where the ledger has vectors of another width or dtype under the fingerprint."""
    folder = shelf_folder(root, fingerprint)
    if not (folder / DESCRIPTION).exists():
        return
    target = Shelf.at(folder)
    if (width, dtype) != (target.width, target.dtype):
        raise AgiqaError(
            f"{source}: expected vectors of width {target.width}, {target.dtype}, as {folder} has "
            f"under the same fingerprint, found width {width}, {dtype}; one of the two is wrong: "
            "find out which (`agiqa cache show`) and move it away"
        )


def differing(
    root: Path, fingerprint: Fingerprint, row_ids: Sequence[str], vectors: Vectors
) -> tuple[str, ...]:
    """Ids of those rows `vectors` (n, D) that the ledger has with other numbers."""
    folder = shelf_folder(root, fingerprint)
    if not (folder / DESCRIPTION).exists():
        return ()
    found = dict(zip(row_ids, row_checksums(id_bytes(row_ids), vectors), strict=True))
    return compare(found, checksums(Shelf.at(folder)))[1]
