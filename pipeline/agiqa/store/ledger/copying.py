"""Adding rows that were computed elsewhere to a shelf: other ledgers' shelves, buckets, packs.

The first row stays: what is there already is passed over, so that a merge may be stopped and
repeated at any moment. Whether it is there with the same numbers, checksums say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agiqa.core.errors import AgiqaError
from agiqa.store.fingerprint import Fingerprint, digest
from agiqa.store.ledger.description import DESCRIPTION, Description, read_description
from agiqa.store.ledger.roots import shelf_folder
from agiqa.store.ledger.shelf import Shelf
from agiqa.store.rows import Vectors, id_bytes, row_checksums


class Source(Protocol):
    """Where rows come from: a `Shelf`, one of layout 1, a pack's vector (../unpacking.py)."""

    described: Description

    def checksums(self) -> Mapping[str, int | None]:
        """The CRC-32 of each row by its id; None of a damaged one of which it is not known."""

    def blocks(self, wanted: Collection[str]) -> Iterator[tuple[Sequence[str], Vectors]]:
        """Whole rows of the wanted ids, (n, D) at a time."""


@dataclass(frozen=True)
class Added:
    """What became of one vector's rows."""

    rows: int  # that were offered
    added: int = 0
    present: int = 0  # already, with the same numbers
    kept: tuple[str, ...] = ()  # ids of those there already with other numbers, which stay
    damaged: tuple[str, ...] = ()  # ids of those that cannot be read, and are not there either
    refused: str = ""  # why none was taken


def compare(
    offered: Mapping[str, int | None], present: Mapping[str, int]
) -> tuple[int, tuple[str, ...]]:
    """Count the offered rows that are present with the same numbers; ids of those with others."""
    kept = tuple(
        name for name, crc32 in offered.items() if crc32 not in (None, present.get(name, crc32))
    )
    return sum(name in present for name in offered) - len(kept), kept


def add_shelf(source: Source, target: Shelf) -> Added:
    """Add the rows of `source` that `target` lacks, a block at a time.

    AgiqaError where another process writes to the target, or the disk fails; what was added by
    then stays, and the same call goes on.
    """
    offered = source.checksums()
    present, kept = compare(offered, target.checksums())
    missing_ids, added = set(offered).difference(target.ids()), 0
    if missing_ids:
        with target.writer() as writer:
            missing_ids -= target.ids()  # of another process, until the lock was ours
            for ids, vectors in source.blocks(missing_ids):
                writer.add(ids, vectors)
                missing_ids.difference_update(ids)
                added += len(ids)
    damaged = tuple(row_id for row_id in offered if row_id in missing_ids)
    return Added(len(offered), added, present, kept, damaged)


def add_to_ledger(source: Source, root: Path, rank: int = 0) -> Added:
    """Add the rows of `source` that its shelf under `root` lacks, which is made where it is not."""
    made_by = source.described
    target = Shelf.open(root, made_by.fingerprint, made_by.width, made_by.dtype, rank)
    return add_shelf(source, target)


def require_fits(root: Path, vectors: Iterable[tuple[Path, Description]]) -> None:
    """AgiqaError where one fingerprint has two widths or dtypes, in the ledger or the vectors."""
    layouts: dict[str, tuple[int, str, Path]] = {}
    for source, vector in vectors:
        key, folder = digest(vector.fingerprint), shelf_folder(root, vector.fingerprint)
        if key not in layouts and (folder / DESCRIPTION).exists():
            target = read_description(folder)
            layouts[key] = target.width, target.dtype, folder
        width, dtype, holder = layouts.setdefault(key, (vector.width, vector.dtype, source))
        if (vector.width, vector.dtype) != (width, dtype):
            raise AgiqaError(
                f"{source}: expected vectors of width {width}, {dtype}, as {holder} has under the "
                f"same fingerprint, found width {vector.width}, {vector.dtype}; one of the two is "
                "wrong: find out which (`agiqa cache show`) and move it away"
            )


def differing(
    root: Path, fingerprint: Fingerprint, row_ids: Sequence[str], vectors: Vectors
) -> tuple[str, ...]:
    """List ids of the rows `vectors` (n, D) that the ledger has with other numbers."""
    folder = shelf_folder(root, fingerprint)
    if not (folder / DESCRIPTION).exists():
        return ()
    crc32: list[int | None] = [*row_checksums(id_bytes(row_ids), vectors)]
    return compare(dict(zip(row_ids, crc32, strict=True)), Shelf.at(folder).checksums())[1]
