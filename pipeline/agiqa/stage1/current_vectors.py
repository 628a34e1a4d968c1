"""What the present settings would make: an extractor's vectors, and their rows in the ledger."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Params
from agiqa.stage1.extractors import (
    ANSWERS,
    TokenExtractor,
    Vector,
    VisionExtractor,
    semantic_extractor,
)
from agiqa.store import TOKENS, Fingerprint, Shelf
from agiqa.store.ledger.roots import shelf_folder

SEMANTIC, VISUAL = "semantic", "visual"


@dataclass(frozen=True)
class Present:
    """The vectors that a section of the settings stands for."""

    section: str  # SEMANTIC, VISUAL
    by_name: bool  # whether the store is named as the section says; else the kind of vector decided
    vectors: tuple[Vector, ...]


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
