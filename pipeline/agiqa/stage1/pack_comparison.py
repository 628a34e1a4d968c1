"""Why vectors would be computed again: two sets of fingerprints, field by field.

Behind `agiqa cache diff`. Vectors are paired by name, else by equal fingerprints (a prompt that was
renamed), and a shelf, whose vector has no name, with the vector that differs least.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Params
from agiqa.stage1.extractors import (
    TokenExtractor,
    Vector,
    VisionExtractor,
    semantic_extractor,
)
from agiqa.store import ANSWERS, TOKENS, Fingerprint, Shelf, difference, digest
from agiqa.store.packs.pack import read_pack_metadata
from agiqa.store.upkeep.stores import is_pack, label

Fields = Sequence[tuple[str, object, object]]


@dataclass(frozen=True)
class Comparison:
    """Vectors there (in the store) against vectors now (in the settings)."""

    same: tuple[str, ...]  # names of the vectors with equal fingerprints
    renamed: Mapping[str, str]  # name there: name now; their fingerprints are equal
    changed: Mapping[str, Fields]  # by name now: field, value there, value now
    removed: tuple[str, ...]  # names that are only there
    added: tuple[str, ...]  # names that are only now


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


def named_fingerprints(path: Path) -> dict[str, Fingerprint]:
    """The fingerprints of a store by the vector's name; a shelf's by a few words.

    Raises:
        AgiqaError: the store is foreign or damaged.
    """
    if is_pack(path):
        metadata = read_pack_metadata(path)
        return dict(zip(metadata["names"], metadata["fingerprints"], strict=True))
    fingerprint = Shelf.at(path).fingerprint
    return {label(fingerprint): fingerprint}


def compare_with_settings(path: Path, params: Params) -> tuple[str, Comparison]:
    """Hold a store against what the settings would make now; which section that is, in words.

    Raises:
        AgiqaError: the store is damaged; no such model or prompt set.
    """
    stored = named_fingerprints(path)
    first = next(iter(stored.values()))
    section, vectors = present_vectors(path if is_pack(path) else None, first, params)
    now = {vector.name: vector.fingerprint for vector in vectors}
    if is_pack(path):
        return section, compare(stored, now)
    name = nearest(first, now)
    return section, compare({name: first}, {name: now[name]})


def present_vectors(
    pack: Path | None, fingerprint: Fingerprint, params: Params
) -> tuple[str, Sequence[Vector]]:
    """What would be in the pack now, or beside a shelf's one vector (`pack` None), by a section.

    A pack belongs to the section whose name it bears, else to that of its vectors' kind.

    Raises:
        AgiqaError: the model or the prompt set of the settings is not there.
    """
    visual_names = {params.visual.name, f"{params.visual.name}-{TOKENS}"}
    semantic_names = {params.semantic.name, f"{params.semantic.name}-{ANSWERS}"}
    name, origin = pack.stem if pack else "", ""
    is_visual = name in visual_names - semantic_names
    if not is_visual and name not in semantic_names:
        is_visual = fingerprint.get("extractor") == "vision"
        origin = f", by what it holds: {name} is no name in the settings" if pack else ""
    if is_visual:
        kind = TokenExtractor if "token_pool" in fingerprint else VisionExtractor
        return f"visual{origin}", kind(params.visual).vectors
    vectors: Sequence[Vector] = semantic_extractor(params.semantic).vectors
    if pack:
        store = ANSWERS if name.endswith(f"-{ANSWERS}") else ""
        vectors = [vector for vector in vectors if vector.store == store]
    return f"semantic{origin}", vectors


def settings_fingerprints(params: Params) -> Iterator[Fingerprint]:
    """List the fingerprint of each vector that the settings name and whose model is there."""
    with suppress(AgiqaError):
        yield from (vector.fingerprint for vector in VisionExtractor(params.visual).vectors)
    with suppress(AgiqaError):
        yield TokenExtractor(params.visual).vectors[0].fingerprint
    for semantic in (params.semantic, *params.extractors.values()):
        with suppress(AgiqaError):
            yield from (vector.fingerprint for vector in semantic_extractor(semantic).vectors)
