"""From a pack back into the ledger: `merge` takes all of it, `extract` what it would compute.

A pack has its rows by image id. Where the ledger knows a vector by more (its question holds the
image's own prompt), the pack has a digest of those row ids, and the caller says which they should
be; only if the two agree is the vector taken, else a changed prompt would find the old one's rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from agiqa.store.fingerprint import digest
from agiqa.store.ledger.copying import Added, compare, require_fits
from agiqa.store.ledger.shelf import Shelf, ShelfWriter
from agiqa.store.packs.pack_layout import row_ids_digest
from agiqa.store.packs.pack_rows import PackRows, open_pack
from agiqa.store.rows import Vectors, id_bytes, row_checksums

RowIds = Mapping[str, Mapping[str, str]]
"""By the digest of a fingerprint: the row id of each image id, where it is another."""


def add_pack(
    path: Path,
    root: Path,
    row_ids: RowIds | None = None,
    wanted: Mapping[str, Collection[str]] | None = None,
    rank: int = 0,
) -> dict[str, Added]:
    """Add the pack's rows that the ledger `root` lacks, block by block; what became of each vector.

    Args:
        path: the pack.
        root: the ledger's folder.
        row_ids: what the ledger knows rows by, for vectors that are not known by image id alone.
        wanted: by the digest of a fingerprint, the images whose rows are wanted; None: all of all.
        rank: of this process among several that write at once.

    Raises:
        AgiqaError: the pack is absent, foreign, newer or damaged in what all rows need; its width
            or dtype is not the ledger's; another process writes there; the disk fails. What was
            added by then stays, and the same call goes on.
    """
    with open_pack(path) as pack:
        columns = [
            _Column(pack, place, (row_ids or {}).get(digest(fingerprint)), wanted)
            for place, fingerprint in enumerate(pack.metadata["fingerprints"])
        ]
        for column in columns:
            column.open(root, rank)
        open_columns = [column for column in columns if column.shelf is not None]
        names = {name for column in open_columns for name in column.ids}
        with ExitStack() as stack:
            for column in open_columns:
                column.begin(stack)
            for block in pack.blocks(names):
                for column in open_columns:
                    column.add(block.image_ids, block.vectors[:, column.place])
        return {column.name: column.found() for column in columns}


def count_offered(
    path: Path, row_ids: RowIds | None = None, wanted: Mapping[str, Collection[str]] | None = None
) -> int:
    """How many rows `add_pack` would look at for the same arguments; vectors are not read."""
    with open_pack(path) as pack:
        columns = [
            _Column(pack, place, (row_ids or {}).get(digest(fingerprint)), wanted)
            for place, fingerprint in enumerate(pack.metadata["fingerprints"])
        ]
        return sum(len(column.ids) for column in columns)


class _Column:
    """One vector of a pack on its way into its shelf."""

    def __init__(
        self,
        pack: PackRows,
        place: int,
        row_ids: Mapping[str, str] | None,
        wanted: Mapping[str, Collection[str]] | None,
    ) -> None:
        self.pack, self.place = pack, place
        self.name = str(pack.metadata["names"][place])
        self.fingerprint = pack.metadata["fingerprints"][place]
        self.ids: dict[str, str] = {}  # image id: row id, of what is to be taken
        self.shelf: Shelf | None = None
        mine = None if wanted is None else wanted.get(digest(self.fingerprint), ())
        self.refused = "" if mine is not None and not mine else _refusal(pack, self.name, row_ids)
        self.added = self.there = 0
        self.kept: list[str] = []
        if not self.refused:
            known = row_ids or {}
            chosen = [name for name in pack.image_ids if mine is None or name in mine]
            self.ids = {name: known.get(name, name) for name in chosen}
        self.left = set(self.ids.values())  # not yet known to be in the shelf
        self.offered = len(self.left) if not self.refused else len(pack.image_ids)

    def open(self, root: Path, rank: int) -> None:
        """Open or create the shelf, if anything is to be taken."""
        if self.ids:
            width, dtype = self.pack.metadata["width"], self.pack.metadata["dtype"]
            require_fits(root, self.pack.path, self.fingerprint, width, dtype)
            self.shelf = Shelf.open(root, self.fingerprint, width, dtype, rank)

    def begin(self, stack: ExitStack) -> None:
        """See what is there; take the writer's lock if anything is not."""
        assert self.shelf is not None
        self.crc32 = self.shelf.checksums()
        self.writer: ShelfWriter | None = None
        if not self.left <= self.crc32.keys():
            self.writer = stack.enter_context(self.shelf.writer())
            self.crc32 = self.shelf.checksums()  # of another process, until the lock was ours

    def add(self, image_ids: list[str], vectors: Vectors) -> None:
        """Take rows (n, D) of a block, where they are wanted and new."""
        places = [place for place, name in enumerate(image_ids) if name in self.ids]
        names = [self.ids[image_ids[place]] for place in places]
        rows = vectors[places]
        found = dict(zip(names, row_checksums(id_bytes(names), rows), strict=True))
        there, kept = compare(found, self.crc32)
        self.there += there
        self.kept += kept
        self.left.difference_update(names)
        new = [place for place, name in enumerate(names) if name not in self.crc32]
        if self.writer is not None and new:
            self.writer.add([names[place] for place in new], rows[new])
            self.added += len(new)

    def found(self) -> Added:
        """What became of the rows; a damaged one that the shelf has is no loss."""
        result = Added(self.offered, self.added, self.there, tuple(self.kept), (), self.refused)
        if self.shelf is None or not self.left:
            return result
        there = self.left & self.crc32.keys()
        damaged = tuple(name for name in self.ids.values() if name in self.left - there)
        return replace(result, there=result.there + len(there), damaged=damaged)


def _refusal(pack: PackRows, name: str, row_ids: Mapping[str, str] | None) -> str:
    """Why a vector's row ids are not certain; "" where they are."""
    recorded = pack.metadata.get("row_ids", {}).get(name)
    if row_ids is None and recorded is None:
        return ""
    if not row_ids:
        return "its rows depend on the images' own prompts, and no images table says which"
    if recorded is None:
        return "its rows depend on the images' own prompts, and the pack does not say on which"
    if any(image_id not in row_ids for image_id in pack.image_ids) or recorded != row_ids_digest(
        [row_ids[image_id] for image_id in pack.image_ids]
    ):
        return "the images' own prompts are not those that it was packed with"
    return ""
