"""From a pack back into the ledger: `merge` takes all of it, `extract` what it would compute.

A pack has its rows by image id. Where the ledger knows a vector by more (its question holds the
image's own prompt), the pack has a digest of those row ids, and the caller says which they should
be; only if the two agree is the vector taken, else a changed prompt would find the old one's rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from agiqa.store.fingerprint import Fingerprint, digest
from agiqa.store.ledger.copying import Added, add_shelf, require_fits
from agiqa.store.ledger.shelf import Shelf
from agiqa.store.packs.pack import open_pack
from agiqa.store.packs.pack_layout import row_ids_digest
from agiqa.store.packs.pack_rows import PackRows
from agiqa.store.rows import Vectors, id_bytes, row_checksums

RowIds = Mapping[str, Mapping[str, str]]
"""By the digest of a fingerprint: the row id of each image id, where it is another."""
Wanted = Mapping[str, Collection[str]]
"""By the digest of a fingerprint: the images whose rows are wanted."""


def add_pack(
    path: Path,
    root: Path,
    row_ids: RowIds | None = None,
    wanted: Wanted | None = None,
    rank: int = 0,
) -> dict[str, Added]:
    """Add the pack's rows that the ledger `root` lacks, block by block; what became of each vector.

    Args:
        path: the pack.
        root: the ledger's folder.
        row_ids: what the ledger knows rows by, for vectors that are not known by image id alone.
        wanted: the rows that are wanted; None: all of all.
        rank: of this process among several that write at once.

    Raises:
        AgiqaError: the pack is absent, foreign, newer or damaged in what all rows need; its width
            or dtype is not the ledger's; another process writes there; the disk fails. What was
            added by then stays, and the same call goes on.
    """
    vectors = pack_vectors(path, row_ids, wanted)
    require_fits(root, [(path, vector) for vector in vectors if vector.ids])
    return {vector.name: vector.add_to(root, rank) for vector in vectors}


class PackVector:
    """One vector of a pack, as a source of rows for its shelf."""

    def __init__(self, pack: PackRows, place: int) -> None:
        self.pack, self.place = pack, place
        self.name = str(pack.metadata["names"][place])
        self.fingerprint: Fingerprint = pack.metadata["fingerprints"][place]
        self.width, self.dtype = int(pack.metadata["width"]), str(pack.metadata["dtype"])
        self.refused = ""  # why nothing of it is taken
        self.ids: dict[str, str] = {}  # row id by image id, of what is wanted
        self.crc32: dict[str, int | None] = {}
        self.siblings = [self]  # the pack's vectors, for all of which it is read once

    def add_to(self, root: Path, rank: int = 0) -> Added:
        """Add what the ledger `root` lacks of it."""
        if not self.ids:
            return Added(len(self.pack.image_ids) if self.refused else 0, refused=self.refused)
        shelf = Shelf.open(root, self.fingerprint, self.width, self.dtype, rank)
        return add_shelf(self, shelf)

    def checksums(self) -> dict[str, int | None]:
        """The CRC-32 of each row by its id; None of damaged ones."""
        if not self.crc32:
            _take_checksums(self.pack, self.siblings)
        return self.crc32

    def blocks(self, wanted: Collection[str]) -> Iterator[tuple[list[str], Vectors]]:
        """Whole rows of the wanted ids, (n, D) at a time."""
        images = {name for name, row_id in self.ids.items() if row_id in wanted}
        for image_ids, vectors in self.pack.blocks(images):
            yield [self.ids[name] for name in image_ids], vectors[:, self.place]


def pack_vectors(
    path: Path, row_ids: RowIds | None = None, wanted: Wanted | None = None
) -> list[PackVector]:
    """Open a pack's vectors, each with what is wanted of it, or why not; see `add_pack`."""
    pack = open_pack(path)
    vectors = [PackVector(pack, place) for place in range(len(pack.metadata["names"]))]
    for vector in vectors:
        key = digest(vector.fingerprint)
        known, chosen, vector.siblings = (row_ids or {}).get(key), pack.image_ids, vectors
        if wanted is not None:
            chosen = tuple(name for name in chosen if name in wanted.get(key, ()))
        vector.refused = _refusal(pack, vector.name, known) if chosen else ""
        if not vector.refused:
            vector.ids = {name: (known or {}).get(name, name) for name in chosen}
    return vectors


def _take_checksums(pack: PackRows, vectors: list[PackVector]) -> None:
    """Give every vector the checksums of its rows, in one reading of the pack."""
    for vector in vectors:
        vector.crc32 = dict.fromkeys(vector.ids.values())
    for image_ids, block in pack.blocks(set().union(*(vector.ids for vector in vectors))):
        for vector in vectors:
            rows = [row for row, name in enumerate(image_ids) if name in vector.ids]
            names = [vector.ids[image_ids[row]] for row in rows]
            crc32 = row_checksums(id_bytes(names), block[rows, vector.place])
            vector.crc32.update(zip(names, crc32, strict=True))


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
