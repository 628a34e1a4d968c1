"""Why vectors would be computed again: two sets of fingerprints, field by field, and missing rows.

Behind `agiqa cache diff`. Vectors are paired by name, else by equal fingerprints (a prompt that was
renamed), and a shelf, whose vector has no name, with the vector that differs least.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from agiqa.core.params import Params
from agiqa.data.datasets.table import IMAGES_CSV, read_table
from agiqa.stage1.current_vectors import Present, present_vectors, rows_there
from agiqa.stage1.extractors import asks_image_prompt
from agiqa.stage1.ledger_rows import ledger_id
from agiqa.store import Fingerprint, Shelf, difference, digest
from agiqa.store.packs.pack import open_pack, read_pack_metadata
from agiqa.store.row_ids import Source, sources_of
from agiqa.store.upkeep.stores import PACK, label

Fields = Sequence[tuple[str, object, object]]


@dataclass(frozen=True)
class Comparison:
    """Vectors there (in the store) against vectors now (in the settings, or in another store)."""

    same: tuple[str, ...]  # names of the vectors with equal fingerprints
    renamed: Mapping[str, str]  # name there: name now; their fingerprints are equal
    changed: Mapping[str, Fields]  # by name now: field, value there, value now
    removed: tuple[str, ...]  # names that are only there
    added: tuple[str, ...]  # names that are only now


@dataclass(frozen=True)
class Missing:
    """What `extract` would compute now."""

    images: int  # that were asked for
    vectors: Mapping[str, int]  # missing rows by the vector's name
    missing_images: tuple[str, ...] = ()  # files, or image ids, that lack any row
    new_images: tuple[str, ...] = ()  # of the table, that are not in the pack
    gone_images: int = 0  # of the pack, that are not in the table
    in_pack: int = 0  # missing rows that the pack has under the present fingerprint
    notes: tuple[str, ...] = field(default=())


def compare(stored: Mapping[str, Fingerprint], now: Mapping[str, Fingerprint]) -> Comparison:
    """Pair vectors by name, then by fingerprint, and name what differs."""
    same = tuple(name for name in stored if name in now and not difference(stored[name], now[name]))
    free = {digest(now[name]): name for name in now if name not in stored}
    renamed = {
        name: free[digest(made)]
        for name, made in stored.items()
        if name not in same and digest(made) in free
    }
    taken = {*same, *renamed.values()}
    changed = {
        name: difference(stored[name], now[name])
        for name in now
        if name in stored and name not in taken and name not in renamed
    }
    return Comparison(
        same=same,
        renamed=renamed,
        changed=changed,
        removed=tuple(name for name in stored if name not in now and name not in renamed),
        added=tuple(name for name in now if name not in stored and name not in taken),
    )


def nearest(wanted: Fingerprint, names: Mapping[str, Fingerprint]) -> str:
    """Which of the named fingerprints differs from `wanted` in the fewest fields."""
    return min(names, key=lambda name: len(difference(wanted, names[name])))


def named_fingerprints(kind: str, path: Path) -> dict[str, Fingerprint]:
    """The fingerprints of a store by the vector's name; a shelf's by a few words.

    Raises:
        AgiqaError: the store is foreign or damaged.
    """
    if kind == PACK:
        metadata = read_pack_metadata(path)
        return dict(zip(metadata["names"], metadata["fingerprints"], strict=True))
    fingerprint = Shelf.at(path).fingerprint
    return {label(fingerprint): fingerprint}


def compare_with_settings(
    kind: str, path: Path, params: Params, ledger: Path
) -> tuple[Present, Comparison, Missing]:
    """The store against what the settings would make, and what would have to be computed.

    Of a pack: for the images of the table beside it, or its own where there is none. Of a shelf:
    for the images that it has rows of.

    Raises:
        AgiqaError: the store, the table or the ledger is damaged; no such model or prompt set.
    """
    stored = named_fingerprints(kind, path)
    first = next(iter(stored.values()))
    present = present_vectors(path if kind == PACK else None, first, params)
    now = {vector.name: vector.fingerprint for vector in present.vectors}
    if kind == PACK:
        return present, compare(stored, now), _missing_of_pack(path, stored, present, ledger)
    name = nearest(first, now)
    wanted = Shelf.at(path).ids()
    absent = wanted - rows_there(ledger, now[name])
    if digest(now[name]) == digest(first):
        absent = frozenset()  # the shelf may lie in another ledger
    missing = Missing(len(wanted), {name: len(absent)}, tuple(sorted(absent)))
    return present, compare({name: first}, {name: now[name]}), missing


def _missing_of_pack(
    path: Path, stored: Mapping[str, Fingerprint], present: Present, ledger: Path
) -> Missing:
    pack = open_pack(path)
    packed, has_table = set(pack.image_ids), (path.parent / IMAGES_CSV).exists()
    left_out = set(pack.metadata.get("left_out", ()))
    sources = _sources(path, present) if has_table else [Source(i, Path(i)) for i in pack.image_ids]
    in_pack_as = {s: s.row_id if pack.by_prompt else s.image_id for s in sources}
    wanted = [source for source in sources if in_pack_as[source] not in left_out]
    made = {digest(fingerprint) for fingerprint in stored.values()}
    count, lost, in_pack = {}, set[Source](), 0
    for vector in present.vectors:
        in_ledger = rows_there(ledger, vector.fingerprint)
        by_row = {ledger_id(vector, source): source for source in reversed(wanted)}
        missing = [source for row, source in by_row.items() if row not in in_ledger]
        count[vector.name] = len(missing)
        lost.update(missing)
        if digest(vector.fingerprint) in made:
            in_pack += sum(in_pack_as[source] in packed for source in missing)
    notes = []
    if not has_table:
        notes.append(f"no images table beside it ({IMAGES_CSV}): its own images are counted")
    if left_out:
        notes.append(f"{len(left_out)} images that --skip-bad left out are not counted")
    return Missing(
        images=len(wanted),
        vectors=count,
        missing_images=tuple(source.path.as_posix() for source in wanted if source in lost),
        new_images=tuple(s.path.as_posix() for s in wanted if in_pack_as[s] not in packed),
        gone_images=len(packed.difference(in_pack_as.values())),
        in_pack=in_pack,
        notes=tuple(notes),
    )


def _sources(pack: Path, present: Present) -> list[Source]:
    """The rows that `extract` would make of the table beside a pack, by relative path."""
    table = replace(read_table(pack.parent), root=Path())
    return list(sources_of(table, asks_image_prompt(present.vectors)).values())


def image_ids(kind: str, path: Path) -> frozenset[str]:
    """The rows that a store has."""
    return frozenset(open_pack(path).image_ids) if kind == PACK else Shelf.at(path).ids()
