"""Shelves whose fingerprint.json is lost or damaged: what their rows are, from what is known else.

A shelf's name holds the first digits of its fingerprint's digest. Whoever has the fingerprint can
write the description anew: packs made from the shelf, runs that read them, another ledger's shelf
of the same name, and the extractors that the settings name.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agiqa.errors import AgiqaError
from agiqa.extractors import VisionExtractor, semantic_extractor
from agiqa.feature_store import Fingerprint
from agiqa.feature_store.ledger.journal import Journal
from agiqa.feature_store.ledger.section import JOURNAL
from agiqa.feature_store.ledger.shelf import other_roots
from agiqa.feature_store.ledger.shelf_description import (
    DESCRIPTION,
    MOST_BYTES,
    SHORT,
    is_of,
    parse_description,
    read_description,
    restore_description,
)
from agiqa.feature_store.own_files import read_own, size_of
from agiqa.params import Params
from agiqa.upkeep.stores import find_packs, read_pack_store
from agiqa.upkeep.users import find_runs


@dataclass(frozen=True)
class Sight:
    """Where fingerprints are looked for."""

    caches: Sequence[Path]  # folders of packs
    runs: Sequence[Path]  # folders of runs
    params: Params

    def fingerprints(self, shelf: Path) -> Iterator[tuple[str, Fingerprint]]:
        """All that are known, with where they are from; models are looked at last."""
        with suppress(AgiqaError, OSError, ValueError):  # it may be wrong in something else alone
            own = read_own(shelf / DESCRIPTION, MOST_BYTES)
            yield "itself", parse_description(own, DESCRIPTION).fingerprint
        for path in (pack for cache in self.caches for pack in find_packs(cache)):
            yield from ((str(path), found) for found in read_pack_store(path).fingerprints)
        for run in find_runs(self.runs)[0]:
            yield from ((str(run.folder), found) for found in run.fingerprints)
        for root in other_roots(shelf.parent):
            with suppress(AgiqaError):
                yield str(root / shelf.name), read_description(root / shelf.name).fingerprint
        with suppress(AgiqaError):
            yield from (
                ("the settings", vector.fingerprint)
                for vector in VisionExtractor(self.params.visual).vectors
            )
        for semantic in (self.params.semantic, *self.params.extractors.values()):
            with suppress(AgiqaError):
                yield from (
                    ("the settings", vector.fingerprint)
                    for vector in semantic_extractor(semantic).vectors
                )


def recover(shelf: Path, sight: Sight) -> str:
    """Write a shelf's description anew; says from what.

    AgiqaError where nothing in sight has its fingerprint, or the array's metadata is damaged as
    well: which rows are unusable, and how to free them.
    """
    for where, fingerprint in sight.fingerprints(shelf):
        if is_of(shelf, fingerprint) and restore_description(shelf, [fingerprint]):
            return f"{shelf / DESCRIPTION}: written anew, out of {where}"
    rows: set[str] = set()
    for path in (shelf / JOURNAL, *shelf.glob(f"part-*/{JOURNAL}")):
        with suppress(AgiqaError, OSError):
            (journal := Journal(path)).refresh()
            rows.update(journal.rows)
    raise AgiqaError(
        f"{shelf}: expected a fingerprint whose digest begins with {shelf.name[-SHORT:]} in a "
        f"pack, a run or the settings, found none; its {len(rows):,} rows ({size_of(shelf):,} "
        "bytes) cannot be used without: run the same where the project's packs, runs or "
        "params.yaml are (--cache, --runs, --params), or delete the folder to free them"
    )
