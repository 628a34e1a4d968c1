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
    found, unreadable = [], []
    for path in sorted({path for folder in folders for path in provenance_files(folder)}):
        try:
            tree = read_json(path)
            stores = [
                store["fingerprints"]
                for store in tree["stores"].values()
                if isinstance(store, Mapping) and "fingerprints" in store
            ]
            digests = tuple(frozenset(digest(made) for made in prints) for prints in stores)
            prints = tuple(made for prints in stores for made in prints)
            found.append(RunStores(path.parent, str(tree["dataset"]), digests, prints))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            unreadable.append(path)
    return found, unreadable
