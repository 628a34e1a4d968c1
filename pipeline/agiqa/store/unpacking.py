"""From a pack back into the ledger: `merge` takes all of it, `extract` what it would compute.

Most vectors' rows have the same ids in both. Where a question holds the image's own prompt, they
have not: the pack's rows are by image and prompt, and vectors of other questions are known to the
ledger by the image alone; in packs of earlier versions every row was. The images table says which
is which (`own_prompt_rows`), but may have changed since: a vector of an earlier version is taken
only if the pack's digest of the ledger's ids agrees, else a new prompt would find the old's rows.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import DATASET_JSON, read_table
from agiqa.data.prompts import IMAGE_PROMPT
from agiqa.store.fingerprint import digest
from agiqa.store.ledger.copying import Added, add_to_ledger, require_fits
from agiqa.store.ledger.description import Description
from agiqa.store.packs.pack import open_pack, read_pack_metadata
from agiqa.store.packs.pack_layout import is_by_prompt, row_ids_digest
from agiqa.store.packs.pack_rows import PackRows
from agiqa.store.row_ids import Source, sources_of
from agiqa.store.rows import Vectors, id_bytes, row_checksums

log = logging.getLogger(__name__)

RowIds = Mapping[str, Mapping[str, str]]
"""By the digest of a fingerprint: the ledger's id by the pack's, where the two differ."""
Wanted = Mapping[str, Collection[str] | None]
"""By the digest of a fingerprint: the rows that are wanted, by the ledger's ids; None: all."""


def add_pack(
    path: Path,
    root: Path,
    row_ids: RowIds | None = None,
    wanted: Wanted | None = None,
    rank: int = 0,
) -> dict[str, Added]:
    """Add the pack's rows that the ledger `root` lacks, block by block; what became of each vector.

    AgiqaError where the pack is absent, foreign, newer or damaged in what all rows need; its width
    or dtype is not the ledger's; another process writes there as `rank`; the disk fails. What was
    added by then stays, and the same call goes on.
    """
    vectors = pack_vectors(path, row_ids, wanted)
    require_fits(root, [(path, vector.described) for vector in vectors if vector.ids])
    return {vector.name: vector.add_to(root, rank) for vector in vectors}


class PackVector:
    """One vector of a pack, as a source of rows for its shelf."""

    def __init__(self, pack: PackRows, index: int) -> None:
        self.pack, self.index = pack, index
        self.name = str(pack.metadata["names"][index])
        about = pack.metadata
        self.described = Description(about["fingerprints"][index], about["width"], about["dtype"])
        self.refused = ""  # why nothing of it is taken
        self.ids: dict[str, str] = {}  # the ledger's id by the pack's, of what is wanted
        self.crc32: dict[str, int | None] = {}
        self.siblings = [self]  # the pack's vectors, for all of which it is read once

    def add_to(self, root: Path, rank: int = 0) -> Added:
        """Add what the ledger `root` lacks of it."""
        if not self.ids:
            return Added(len(self.pack.image_ids) if self.refused else 0, refused=self.refused)
        return add_to_ledger(self, root, rank)

    def checksums(self) -> dict[str, int | None]:
        """The CRC-32 of each row by its id; None of damaged ones."""
        if not self.crc32:
            _take_checksums(self.pack, self.siblings)
        return self.crc32

    def blocks(self, wanted: Collection[str]) -> Iterator[tuple[list[str], Vectors]]:
        """Whole rows of the wanted ids, (n, D) at a time."""
        images = {name for name, row_id in self.ids.items() if row_id in wanted}
        for image_ids, vectors in self.pack.blocks(images):
            yield [self.ids[name] for name in image_ids], vectors[:, self.index]


def pack_vectors(
    path: Path, row_ids: RowIds | None = None, wanted: Wanted | None = None
) -> list[PackVector]:
    """Open a pack's vectors, each with what is wanted of it, or why not; see `add_pack`."""
    pack = open_pack(path)
    vectors = [PackVector(pack, index) for index in range(len(pack.metadata["names"]))]
    for vector in vectors:
        key = digest(vector.described.fingerprint)
        ledger_ids, vector.siblings = (row_ids or {}).get(key), vectors
        wanted_ids = None if wanted is None else wanted.get(key, ())
        if wanted_ids is None or wanted_ids:
            vector.refused = _refusal(pack, vector.name, ledger_ids)
        if not vector.refused:
            vector.ids = _wanted_ids(pack.image_ids, ledger_ids, wanted_ids)
    return vectors


def _wanted_ids(
    ids: Sequence[str], ledger_ids: Mapping[str, str] | None, wanted: Collection[str] | None
) -> dict[str, str]:
    """The ledger's id by the pack's of what is wanted; of an image's rows with several prompts one.

    Rows that are not in `ledger_ids` are left out.
    """
    named = {name: name for name in ids} if ledger_ids is None else ledger_ids
    first = {named[name]: name for name in reversed(ids) if name in named}
    return {first[row]: row for row in reversed(first) if wanted is None or row in wanted}


def _take_checksums(pack: PackRows, vectors: list[PackVector]) -> None:
    """Give every vector the checksums of its rows, in one reading of the pack."""
    for vector in vectors:
        vector.crc32 = dict.fromkeys(vector.ids.values())
    for image_ids, block in pack.blocks(set().union(*(vector.ids for vector in vectors))):
        for vector in vectors:
            rows = [row for row, name in enumerate(image_ids) if name in vector.ids]
            names = [vector.ids[image_ids[row]] for row in rows]
            crc32 = row_checksums(id_bytes(names), block[rows, vector.index])
            vector.crc32.update(zip(names, crc32, strict=True))


def _refusal(pack: PackRows, name: str, row_ids: Mapping[str, str] | None) -> str:
    """Why a vector's row ids are not certain; "" where they are."""
    recorded = pack.metadata.get("row_ids", {}).get(name)
    if row_ids is None and (recorded is None or pack.by_prompt):
        return ""
    if not row_ids:
        return "its rows depend on the images' own prompts, and no images table says which"
    if pack.by_prompt:
        return ""
    if recorded is None:
        return "its rows depend on the images' own prompts, and the pack does not say on which"
    if any(image_id not in row_ids for image_id in pack.image_ids) or recorded != row_ids_digest(
        [row_ids[image_id] for image_id in pack.image_ids]
    ):
        return "the images' own prompts are not those that it was packed with"
    return ""


def own_prompt_rows(
    pack: Path, ids: Sequence[str] = (), sources: Iterable[Source] | None = None
) -> RowIds:
    """List by vector what the ledger knows rows by, where that is another id than the pack's.

    `ids` are those of the pack's rows, and `sources` the images table's, by image and prompt; both
    are read where they are not given. Without a usable table beside the pack the ledger's ids are
    empty, and `add_pack` takes none. PackError where it is absent, foreign, newer or damaged.
    """
    metadata = read_pack_metadata(pack)
    digests = dict(zip(metadata["names"], map(digest, metadata["fingerprints"]), strict=True))
    prompted = {
        key
        for (name, key), fingerprint in zip(digests.items(), metadata["fingerprints"], strict=True)
        if name in metadata.get("row_ids", {}) or IMAGE_PROMPT in str(fingerprint.get("prompt"))
    }
    if not prompted:
        return {}
    if sources is None:
        sources = _sources_beside(pack)
    if is_by_prompt(metadata, ids or open_pack(pack).image_ids):
        image_ids = {source.row_id: source.image_id for source in sources}
        return dict.fromkeys(set(digests.values()) - prompted, image_ids)
    row_ids: dict[str, str] = {}
    for source in sources:
        row_ids.setdefault(source.image_id, source.row_id)
    return dict.fromkeys(prompted, row_ids)


def _sources_beside(pack: Path) -> Iterable[Source]:
    if not (pack.parent / DATASET_JSON).is_file():
        return ()
    try:
        table = replace(read_table(pack.parent), root=Path())  # no image is opened
        return sources_of(table, by_prompt=True).values()
    except AgiqaError as error:
        log.warning("%s", error)
        return ()
