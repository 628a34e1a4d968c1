"""Why vectors would be computed again: two sets of fingerprints, field by field, and missing rows.

Behind `agiqa cache diff`. Vectors are paired by name, else by equal fingerprints (a prompt that was
renamed), and a shelf, whose vector has no name, with the vector that differs least.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Params
from agiqa.data.datasets.table import IMAGES_CSV, read_table
from agiqa.stage1.extractors import (
    TokenExtractor,
    Vector,
    VisionExtractor,
    asks_image_prompt,
    semantic_extractor,
)
from agiqa.stage1.ledger_rows import ledger_id
from agiqa.store import ANSWERS, TOKENS, Fingerprint, Shelf, difference, digest
from agiqa.store.ledger.shelf_folders import shelf_folder
from agiqa.store.packs.pack import open_pack, read_pack_metadata
from agiqa.store.row_ids import Source, sources_of
from agiqa.store.upkeep.stores import PACK, label

Fields = Sequence[tuple[str, object, object]]
SEMANTIC, VISUAL = "semantic", "visual"


@dataclass(frozen=True)
class Present:
    """The vectors that a section of the settings stands for."""

    section: str  # SEMANTIC, VISUAL
    by_name: bool  # whether the store is named as the section says; else the kind of vector decided
    vectors: tuple[Vector, ...]


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


def present_vectors(pack: Path | None, fingerprint: Fingerprint, params: Params) -> Present:
    """What would be in the pack now, or beside a shelf's one vector (`pack` None).

    A pack belongs to the section whose name it bears, else to that of its vectors' kind.

    Raises:
        AgiqaError: the model or the prompt set of the settings is not there.
    """
    answers = f"{params.semantic.name}-{ANSWERS}"
    tokens = f"{params.visual.name}-{TOKENS}"
    names = {
        **{params.visual.name: VISUAL, tokens: VISUAL},
        **{params.semantic.name: SEMANTIC, answers: SEMANTIC},
    }
    section = names.get(pack.stem, "") if pack else ""
    by_name = bool(section)
    if not section:
        section = VISUAL if fingerprint.get("extractor") == "vision" else SEMANTIC
    if section == VISUAL:
        kind = TokenExtractor if "token_pool" in fingerprint else VisionExtractor
        return Present(section, by_name, kind(params.visual).vectors)
    vectors = semantic_extractor(params.semantic).vectors
    if pack is not None:
        store = ANSWERS if pack.stem.endswith(f"-{ANSWERS}") else ""
        vectors = tuple(vector for vector in vectors if vector.store == store)
    return Present(section, by_name, vectors)


def rows_there(ledger: Path, fingerprint: Fingerprint) -> frozenset[str]:
    """The rows that the ledger has under a fingerprint; no shelf is created.

    Raises:
        AgiqaError: its shelf is damaged.
    """
    folder = shelf_folder(ledger, fingerprint)
    return Shelf.at(folder).ids() if folder.exists() else frozenset()


def settings_fingerprints(params: Params) -> Iterator[Fingerprint]:
    """List the fingerprint of each vector that the settings name and whose model is there."""
    with suppress(AgiqaError):
        yield from (vector.fingerprint for vector in VisionExtractor(params.visual).vectors)
    with suppress(AgiqaError):
        yield TokenExtractor(params.visual).vectors[0].fingerprint
    for semantic in (params.semantic, *params.extractors.values()):
        with suppress(AgiqaError):
            yield from (vector.fingerprint for vector in semantic_extractor(semantic).vectors)


def _missing_of_pack(
    path: Path, stored: Mapping[str, Fingerprint], present: Present, ledger: Path
) -> Missing:
    pack = open_pack(path)
    packed, has_table = set(pack.image_ids), (path.parent / IMAGES_CSV).exists()
    left_out = set(pack.metadata.get("left_out", ()))
    sources = [Source(image_id, Path(image_id)) for image_id in pack.image_ids]
    if has_table:  # then by relative path
        table = replace(read_table(path.parent), root=Path())
        sources = list(sources_of(table, asks_image_prompt(present.vectors)).values())
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


def image_ids(kind: str, path: Path) -> frozenset[str]:
    """The rows that a store has."""
    return frozenset(open_pack(path).image_ids) if kind == PACK else Shelf.at(path).ids()
