"""One store: which a user means, and all that is known of it without reading its rows."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agiqa.core.errors import AgiqaError, some
from agiqa.store import Shelf, digest, local_copy, read_pack
from agiqa.store.ledger.description import DESCRIPTION, read_description
from agiqa.store.ledger.roots import find_shelves
from agiqa.store.ledger.segment_folders import SEGMENTS
from agiqa.store.ledger.segments import rows_of
from agiqa.store.packs.pack import FORMATS, read_pack_metadata
from agiqa.store.upkeep.stores import (
    PACK,
    SHELF,
    Store,
    find_packs,
    find_runs,
    read_pack_store,
    read_shelf_store,
)


def choose_store(text: str, ledger: Path) -> tuple[str, Path]:
    """The kind and the path of the store that `text` names; of a pack's URL, that of a copy.

    AgiqaError where none is, or several shelves' names or digests begin so.
    """
    path = local_copy(text, read_pack)
    if text and path.exists():
        if path.suffix in FORMATS:
            return PACK, path
        if (path / DESCRIPTION).exists() or (path / SEGMENTS).exists():
            return SHELF, path
        raise AgiqaError(
            f"{text}: expected a pack named *{' or *'.join(FORMATS)} or a shelf's folder, found "
            "neither; `agiqa cache ls` lists the stores"
        )
    if "/" in text or path.suffix in FORMATS or not text:
        raise AgiqaError(f"{text}: no such store; `agiqa cache ls` lists them")
    shelves = [folder for folder in find_shelves(ledger) if _begins(folder, text)]
    if not shelves:
        raise AgiqaError(
            f"{text}: neither a file here nor the beginning of a shelf's name or digest in "
            f"{ledger}; `agiqa cache ls` lists the stores"
        )
    if len(shelves) > 1:
        names = some([folder.name for folder in shelves])
        raise AgiqaError(
            f"{text}: expected one shelf, found {len(shelves)}: {names}; give more of it"
        )
    return SHELF, shelves[0]


def _begins(folder: Path, text: str) -> bool:
    short = folder.name.rpartition("-")[2]
    if folder.name.startswith(text) or short.startswith(text):
        return True
    if not text.startswith(short) or len(short) < 16:  # more than the folder's name has
        return False
    try:
        return digest(read_description(folder).fingerprint).startswith(text)
    except AgiqaError:
        return False


def details(
    kind: str, path: Path, caches: Sequence[Path], runs: Sequence[Path]
) -> tuple[Store, dict[str, Any]]:
    """The store with its users, and what only its kind has: segments, or layout and left out.

    AgiqaError where it is foreign or damaged.
    """
    all_runs, _ = find_runs(runs)
    if kind != SHELF:
        metadata = read_pack_metadata(path)
        keys = ("format", "layout", "extractor", "check", "left_out")
        extra = {key: metadata[key] for key in keys if key in metadata}
        return read_pack_store(path, all_runs), extra
    sizes = Shelf.at(path).files.sizes()
    segments = [{"file": n, "rows": rows_of(n), "bytes": size} for n, size in sorted(sizes.items())]
    packs = [read_pack_store(pack, all_runs) for pack in find_packs(caches)]
    shelf = read_shelf_store(path, packs)
    through = [run for pack in packs if pack.name in shelf.users for run in pack.users]
    users = (*shelf.users, *dict.fromkeys(through))
    return replace(shelf, users=users), {"segments": segments}
