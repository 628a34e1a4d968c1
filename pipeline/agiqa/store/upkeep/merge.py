"""Rows of other ledgers, of buckets and of packs into this ledger; `agiqa cache merge`.

`merge` takes all of a source, `extract` what it would compute. Every source is looked at before
anything is written. Rows go in a few chunks at a time, each under its own fingerprint. The first
row stays: what is there already is passed over, so that a merge may be stopped and repeated at any
moment. Whether it is there with the same numbers, checksums say. The ledger is also rebuilt from
packs in this way, on a machine that has no other.

Most vectors' rows have the same ids in ledger and pack. Where a question holds the image's own
prompt, the pack's rows are by image and prompt, and vectors of its other questions are known to the
ledger by the image alone: the images table beside the pack says which that is.
"""

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agiqa.core.errors import AgiqaError, some
from agiqa.core.progress import track
from agiqa.data.datasets.table import DATASET_JSON, read_table
from agiqa.store.fingerprint import digest
from agiqa.store.ledger.layout1 import OldShelf
from agiqa.store.ledger.segments import SEGMENTS
from agiqa.store.ledger.shelf import (
    DESCRIPTION,
    PIXELS,
    Description,
    Shelf,
    find_shelves,
    is_layout_1,
    read_description,
    shelf_folder,
)
from agiqa.store.packs.pack import FORMATS, open_pack
from agiqa.store.packs.pack_layout import PackRows
from agiqa.store.row_ids import Source, sources_of
from agiqa.store.rows import Vectors, id_bytes, row_checksums

log = logging.getLogger(__name__)

Wanted = Mapping[str, Collection[str] | None]
"""By the digest of a fingerprint: the rows that are wanted, by the ledger's ids; None: all."""


@dataclass(frozen=True)
class Added:
    """What became of one vector's rows."""

    rows: int  # that were offered
    added: int = 0
    present: int = 0  # already, with the same numbers
    kept: tuple[str, ...] = ()  # ids of those there already with other numbers, which stay
    damaged: tuple[str, ...] = ()  # ids of those that cannot be read, and are not there either
    refused: str = ""  # why none was taken


@dataclass(frozen=True)
class Merged:
    """What became of one vector of a source."""

    source: Path  # a shelf's folder, or a pack
    name: str  # of the vector in the pack; "" for a shelf, which has one
    rows: Added


def add_vector(source: "Shelf | OldShelf | PackVector", root: Path, rank: int = 0) -> Added:
    """Add the rows of `source` that its shelf under `root` lacks, which is made where it is not.

    AgiqaError where another process writes to it as `rank`, or the disk fails; what was added by
    then stays, and the same call goes on.
    """
    if isinstance(source, PackVector) and not source.ids:
        return Added(len(source.pack.image_ids) if source.refused else 0, refused=source.refused)
    made_by = source.described
    target = Shelf.open(root, made_by.fingerprint, made_by.width, made_by.dtype, rank)
    offered: Mapping[str, int | None] = source.checksums()
    present = target.checksums()
    kept = differing(offered, present)
    same = sum(row_id in present for row_id in offered) - len(kept)
    del present  # a large shelf's takes room, and rows are written now
    missing_ids, added = set(offered).difference(target.ids()), 0
    if missing_ids:
        with target.writer() as writer:
            missing_ids -= target.ids()  # of another process, until the lock was ours
            for ids, vectors in source.blocks(missing_ids):
                writer.add(ids, vectors)
                missing_ids.difference_update(ids)
                added += len(ids)
    damaged = tuple(row_id for row_id in offered if row_id in missing_ids)
    return Added(len(offered), added, same, kept, damaged)


def differing(offered: Mapping[str, int | None], present: Mapping[str, int]) -> tuple[str, ...]:
    """List ids of rows whose checksums differ in two places; None is that of a damaged row."""
    pairs = offered.items()
    return tuple(name for name, crc32 in pairs if crc32 not in (None, present.get(name, crc32)))


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


def add_pack(
    path: Path,
    root: Path,
    wanted: Wanted | None = None,
    sources: Iterable[Source] | None = None,
    rank: int = 0,
) -> dict[str, Added]:
    """Add the pack's rows that the ledger `root` lacks, block by block; what became of each vector.

    `sources` are the images table's, by image and prompt; by default that beside the pack is read.
    AgiqaError where the pack is absent, foreign, newer or damaged in what all rows need; its width
    or dtype is not the ledger's; another process writes there as `rank`; the disk fails. What was
    added by then stays, and the same call goes on.
    """
    vectors = pack_vectors(path, wanted, sources)
    require_fits(root, [(path, vector.described) for vector in vectors if vector.ids])
    return {vector.name: add_vector(vector, root, rank) for vector in vectors}


class PackVector:
    """One vector of a pack, as a source of rows for its shelf."""

    def __init__(self, pack: PackRows, index: int) -> None:
        self.pack, self.index = pack, index
        about = pack.metadata
        self.name = str(about["names"][index])
        self.described = Description(about["fingerprints"][index], about["width"], about["dtype"])
        self.refused = ""  # why nothing of it is taken
        self.ids: dict[str, str] = {}  # the ledger's id by the pack's, of what is wanted
        self.crc32: dict[str, int | None] = {}
        self.siblings = [self]  # the pack's vectors, for all of which it is read once

    def checksums(self) -> dict[str, int | None]:
        """The CRC-32 of each row by its id; None of damaged ones. All siblings get theirs."""
        if self.crc32:
            return self.crc32
        for vector in self.siblings:
            vector.crc32 = dict.fromkeys(vector.ids.values())
        for image_ids, block in self.pack.blocks({i for v in self.siblings for i in v.ids}):
            for vector in self.siblings:
                rows = [row for row, name in enumerate(image_ids) if name in vector.ids]
                names = [vector.ids[image_ids[row]] for row in rows]
                crc32 = row_checksums(id_bytes(names), block[rows, vector.index])
                vector.crc32.update(zip(names, crc32, strict=True))
        return self.crc32

    def blocks(self, wanted: Collection[str]) -> Iterator[tuple[list[str], Vectors]]:
        """Whole rows of the wanted ids, (n, D) at a time."""
        images = {name for name, row_id in self.ids.items() if row_id in wanted}
        for image_ids, vectors in self.pack.blocks(images):
            yield [self.ids[name] for name in image_ids], vectors[:, self.index]


def pack_vectors(
    path: Path, wanted: Wanted | None = None, sources: Iterable[Source] | None = None
) -> list[PackVector]:
    """Open a pack's vectors, each with what is wanted of it, or why not; see `add_pack`."""
    pack = open_pack(path)
    image_ids = image_ids_of_rows(path, sources) if pack.by_prompt else {}
    vectors = [PackVector(pack, index) for index in range(len(pack.metadata["names"]))]
    for vector in vectors:
        vector.siblings, ledger_ids = vectors, image_ids
        if not pack.by_prompt or vector.name in pack.metadata["row_ids"]:
            ledger_ids = dict(zip(pack.image_ids, pack.image_ids, strict=True))
        key = digest(vector.described.fingerprint)
        wanted_ids = None if wanted is None else wanted.get(key, ())
        if not ledger_ids and (wanted_ids is None or wanted_ids):
            vector.refused = (
                "its rows depend on the images' own prompts, and no images table says which"
            )
        first: dict[str, str] = {}  # by the ledger's id; of an image with several prompts one
        for name in pack.image_ids:
            if name in ledger_ids:
                first.setdefault(ledger_ids[name], name)
        vector.ids = {
            name: row for row, name in first.items() if wanted_ids is None or row in wanted_ids
        }
    return vectors


def image_ids_of_rows(pack: Path, sources: Iterable[Source] | None = None) -> dict[str, str]:
    """Map what rows are known by, images with their prompts, to the images' ids.

    Out of `sources` or the images table beside the pack; nothing without a usable one.
    """
    if sources is None and (pack.parent / DATASET_JSON).is_file():
        try:
            table = replace(read_table(pack.parent), root=Path())  # no image is opened
            sources = sources_of(table, by_prompt=True).values()
        except AgiqaError as error:
            log.warning("%s", error)
    return {source.row_id: source.image_id for source in sources or ()}


def merge(sources: Sequence[Path], root: Path) -> list[Merged]:
    """Add the rows of shelves, whole ledgers and packs to the ledger `root`.

    Damaged rows are left out and named. A row that is there with other numbers stays as it is.

    Raises:
        AgiqaError: a source is absent, foreign, newer, or this ledger itself; vectors under one
            fingerprint have different widths (all before anything is written); another process
            writes to the ledger; the disk fails. Finished rows stay, and the same call goes on.
    """
    stores = [store for source in sources for store in _stores(source, root)]
    if not stores:
        raise AgiqaError(f"{some([str(path) for path in sources])}: ledgers without any vectors")
    merged: list[Merged] = []
    vectors: list[tuple[Path, Shelf | OldShelf | PackVector]] = []
    for store in stores:
        try:
            if store.suffix in FORMATS:
                vectors += [(store, vector) for vector in pack_vectors(store)]
            else:
                vectors.append((store, OldShelf(store) if is_layout_1(store) else Shelf.at(store)))
        except AgiqaError as error:
            if store in sources:
                raise
            merged.append(Merged(store, "", Added(0, refused=str(error))))
    require_fits(root, [(store, vector.described) for store, vector in vectors])
    for store, vector in track(vectors, "Merge"):
        name = vector.name if isinstance(vector, PackVector) else ""
        merged.append(Merged(store, name, add_vector(vector, root)))
        unusable = vector.rows.unusable if isinstance(vector, Shelf) else {}
        merged += [
            Merged(store / SEGMENTS / name, "", Added(0, refused=f"it has {why}"))
            for name, why in sorted(unusable.items())
        ]
    return merged


def _stores(source: Path, root: Path) -> Iterator[Path]:
    """The shelves and packs that a source names."""
    if not source.exists():
        raise AgiqaError(f"{source}: expected a ledger, a shelf or a pack, found nothing there")
    if root.exists() and source.resolve() in (root.resolve(), *root.resolve().iterdir()):
        raise AgiqaError(
            f"{source}: expected another ledger, found this one ($AGIQA_STORE); name what is to "
            "be added to it"
        )
    if source.suffix in FORMATS or _is_shelf(source):
        yield source
        return
    shelves = [] if source.is_file() else find_shelves(source)
    if not any(map(_is_shelf, shelves)):
        patterns = [f"{level}*{suffix}" for level in ("", "*/") for suffix in FORMATS]
        inside = sorted(path for pattern in patterns for path in source.glob(pattern))
        hint = f"; name the packs in it, such as {inside[0]}" if inside else ""
        raise AgiqaError(
            f"{source}: expected a ledger (folders with {DESCRIPTION}), a shelf or a pack "
            f"({', '.join(FORMATS)}), found none of them{hint}"
        )
    for shelf in shelves:
        if (shelf / PIXELS).exists():
            log.info("%s: decoded images are passed over; they are made again when needed", shelf)
        elif _is_shelf(shelf):
            yield shelf


def _is_shelf(folder: Path) -> bool:
    """Whether anything of a shelf is there: what is wrong with it is said when it is opened."""
    return any(os.path.lexists(folder / name) for name in (DESCRIPTION, SEGMENTS))
