"""Shelves whose fingerprint.json is lost or damaged: what their rows are, from what is known else.

A shelf's name holds the first digits of its fingerprint's digest. Whoever has the fingerprint can
write the description anew: packs made from the shelf, runs that read them, another ledger's shelf
of the same name, and the extractors that the settings name.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agiqa.core.errors import AgiqaError
from agiqa.store import Fingerprint
from agiqa.store.ledger.description import (
    DESCRIPTION,
    MOST_BYTES,
    is_of,
    parse_description,
    read_description,
    restore_description,
)
from agiqa.store.ledger.roots import SHORT, other_roots
from agiqa.store.ledger.segment_folders import LocalSegments
from agiqa.store.ledger.segments import rows_of
from agiqa.store.own_files import read_own, size_of
from agiqa.store.upkeep.stores import find_packs, find_runs, read_pack_store


@dataclass(frozen=True)
class KnownFingerprints:
    """Where fingerprints are looked for."""

    caches: Sequence[Path]  # folders of packs
    runs: Sequence[Path]  # folders of runs
    of_settings: Callable[[], Iterable[Fingerprint]]  # looks at models, so it is asked last

    def fingerprints(self, shelf: Path) -> Iterator[tuple[str, Fingerprint]]:
        """Yield known fingerprints with their origin; models are looked at last."""
        with suppress(AgiqaError, OSError, ValueError):  # it may be wrong in something else alone
            text = read_own(shelf / DESCRIPTION, MOST_BYTES)
            yield "itself", parse_description(text, DESCRIPTION).fingerprint
        for path in (pack for cache in self.caches for pack in find_packs(cache)):
            for fingerprint in read_pack_store(path).fingerprints:
                yield str(path), fingerprint
        for run in find_runs(self.runs)[0]:
            yield from ((str(run.folder), fingerprint) for fingerprint in run.fingerprints)
        for root in other_roots(shelf.parent):
            with suppress(AgiqaError):
                yield str(root / shelf.name), read_description(root / shelf.name).fingerprint
        yield from (("the settings", fingerprint) for fingerprint in self.of_settings())


def recover(shelf: Path, known: KnownFingerprints) -> str:
    """Write a shelf's description anew; says from what.

    AgiqaError where nothing known has its fingerprint: how many rows are unusable, and how to free
    them.
    """
    for origin, fingerprint in known.fingerprints(shelf):
        if is_of(shelf, fingerprint) and restore_description(shelf, [fingerprint]):
            return f"{shelf / DESCRIPTION}: written anew, out of {origin}"
    rows = sum(rows_of(name) or 0 for name in LocalSegments(shelf).sizes())
    raise AgiqaError(
        f"{shelf}: expected a fingerprint whose digest begins with {shelf.name[-SHORT:]} in a "
        f"pack, a run or the settings, found none; its {rows:,} rows ({size_of(shelf):,} "
        "bytes) cannot be used without: run the same where the project's packs, runs or "
        "params.yaml are (--cache, --runs, --params), or delete the folder to free them"
    )
