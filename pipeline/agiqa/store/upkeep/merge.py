"""Rows of other ledgers and of packs into this ledger; `agiqa cache merge`.

Every source is looked at before anything is written. Rows go in a few chunks at a time, each under
its own fingerprint, and what is there already is passed over: a merge that was stopped is simply
run again. The ledger is also rebuilt from packs in this way, on a machine that has no other.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agiqa.core.errors import AgiqaError, some
from agiqa.core.progress import track
from agiqa.store import FORMATS, Shelf, require_fits
from agiqa.store.adding import Added, PackVector, add_vector, pack_vectors
from agiqa.store.ledger.layout1 import OldShelf
from agiqa.store.ledger.segments import SEGMENTS
from agiqa.store.ledger.shelf_folders import DESCRIPTION, PIXELS, find_shelves, is_layout_1

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Merged:
    """What became of one vector of a source."""

    source: Path  # a shelf's folder, or a pack
    name: str  # of the vector in the pack; "" for a shelf, which has one
    rows: Added


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
