"""From a pack back into the ledger: `merge` takes all of it, `extract` what it would compute.

A pack has its rows by image id. Where the ledger knows a vector by more (its question holds the
image's own prompt), the pack has a digest of those row ids, and the caller says which they should
be; only if the two agree is the vector taken, else a changed prompt would find the old one's rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from agiqa.store.fingerprint import digest
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
    pack = open_pack(path)
    width, dtype = pack.metadata["width"], pack.metadata["dtype"]
    columns = _columns(pack, row_ids, wanted)
    for column in columns:
        if column.ids:
            require_fits(root, path, column.fingerprint, width, dtype)
    _take_checksums(pack, columns)
    added: dict[str, Added] = {}
    for column in columns:
        if column.ids:
            shelf = Shelf.open(root, column.fingerprint, width, dtype, rank)
            added[column.name] = add_shelf(column, shelf)
        else:
            rows = len(pack.image_ids) if column.refused else 0
            added[column.name] = Added(rows, refused=column.refused)
    return added


def count_offered(path: Path, row_ids: RowIds | None = None, wanted: Wanted | None = None) -> int:
    """How many rows `add_pack` would look at for the same arguments; vectors are not read."""
    return sum(len(column.ids) for column in _columns(open_pack(path), row_ids, wanted))


class _Column:
    """One vector of a pack, as a source of rows for its shelf."""

    def __init__(
        self, pack: PackRows, place: int, known: Mapping[str, str], images: Collection[str]
    ):
        self.pack, self.place = pack, place
        self.name = str(pack.metadata["names"][place])
        self.fingerprint = pack.metadata["fingerprints"][place]
        self.refused = ""
        self.ids = {name: known.get(name, name) for name in images}  # row id by image id
        self.crc32: dict[str, int | None] = {}

    def checksums(self) -> dict[str, int | None]:
        """The CRC-32 of each row by its id; None of damaged ones."""
        return self.crc32

    def blocks(self, wanted: Collection[str]) -> Iterator[tuple[list[str], Vectors]]:
        """Whole rows of the wanted ids, (n, D) at a time."""
        images = {name for name, row_id in self.ids.items() if row_id in wanted}
        for image_ids, vectors in self.pack.blocks(images):
            yield [self.ids[name] for name in image_ids], vectors[:, self.place]


def _columns(pack: PackRows, row_ids: RowIds | None, wanted: Wanted | None) -> list[_Column]:
    """The pack's vectors, each with what is wanted of it, or why nothing of it is taken."""
    columns = []
    for place, fingerprint in enumerate(pack.metadata["fingerprints"]):
        key = digest(fingerprint)
        known = (row_ids or {}).get(key)
        chosen = pack.image_ids
        if wanted is not None:
            chosen = tuple(name for name in chosen if name in wanted.get(key, ()))
        column = _Column(pack, place, known or {}, chosen)
        if chosen and (refusal := _refusal(pack, column.name, known)):
            column.refused, column.ids = refusal, {}
        columns.append(column)
    return columns


def _take_checksums(pack: PackRows, columns: list[_Column]) -> None:
    """Give every column the checksums of its rows, in one reading of the pack."""
    for column in columns:
        column.crc32 = dict.fromkeys(column.ids.values())
    for image_ids, vectors in pack.blocks(set().union(*(column.ids for column in columns))):
        for column in columns:
            rows = [row for row, name in enumerate(image_ids) if name in column.ids]
            names = [column.ids[image_ids[row]] for row in rows]
            crc32 = row_checksums(id_bytes(names), vectors[rows, column.place])
            column.crc32.update(zip(names, crc32, strict=True))


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
