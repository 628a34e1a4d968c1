"""Which runs were made from which vectors, by the fingerprints in their provenance.

`agiqa cache ls` names them; `gc` keeps what they were made from.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agiqa.core.run_folders import provenance_files
from agiqa.core.trees import read_json
from agiqa.store import Fingerprint, digest


@dataclass(frozen=True)
class RunStores:
    """One run: what it read."""

    folder: Path
    dataset: str
    stores: tuple[frozenset[str], ...]  # digests of the fingerprints, store by store
    fingerprints: tuple[Fingerprint, ...]


def find_runs(folders: Iterable[Path]) -> tuple[list[RunStores], list[Path]]:
    """The runs below `folders`; and files that ought to say what a run read, and do not."""
    runs, unreadable = [], []
    for path in sorted({path for folder in folders for path in provenance_files(folder)}):
        try:
            tree = read_json(path)
            stores = [
                store["fingerprints"]
                for store in tree["stores"].values()
                if isinstance(store, Mapping) and "fingerprints" in store
            ]
            digests = tuple(frozenset(map(digest, fingerprints)) for fingerprints in stores)
            every = tuple(fingerprint for fingerprints in stores for fingerprint in fingerprints)
            runs.append(RunStores(path.parent, str(tree["dataset"]), digests, every))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            unreadable.append(path)
    return runs, unreadable
