"""Checking stores, and mending what can be mended from the other layer: `agiqa cache verify`.

A shelf drops its bad rows and takes what it lacks from packs; a pack is packed again from the
ledger. What neither layer has is left for `agiqa extract` to compute.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import IMAGES_CSV, read_table
from agiqa.store import (
    PackError,
    Shelf,
    add_pack,
    digest,
    require_fits,
    row_ids_digest,
    write_pack,
)
from agiqa.store.findings import Finding, Report
from agiqa.store.ledger.description import (
    Description,
    LostDescriptionError,
    MisnamedShelfError,
    read_description,
)
from agiqa.store.ledger.roots import find_shelves, shelf_folder
from agiqa.store.ledger.shelf_check import check_shelf, repair_shelf
from agiqa.store.packs.pack import open_pack, read_pack_metadata
from agiqa.store.packs.pack_check import check_pack
from agiqa.store.packs.pack_layout import is_by_prompt
from agiqa.store.row_ids import row_ids
from agiqa.store.upkeep.lost_shelves import KnownFingerprints, recover
from agiqa.store.upkeep.own_prompts import own_prompt_rows
from agiqa.store.upkeep.stores import PACK, SHELF, find_packs, read_pack_store


def all_stores(ledger: Path, caches: Sequence[Path]) -> list[tuple[str, Path]]:
    """Kind and path of every store: shelves first, since packs are mended from them."""
    packs = [path for cache in caches for path in find_packs(cache)]
    return [(SHELF, folder) for folder in find_shelves(ledger)] + [(PACK, path) for path in packs]


def verify(kind: str, path: Path, ledger: Path, known: KnownFingerprints | None = None) -> Report:
    """Read all of a store; with `known`, where packs and lost fingerprints lie, mend it.

    What the disk cannot read now is a finding, too, and nothing is dropped for that.
    """
    check = check_pack if kind == PACK else check_shelf
    try:
        report = check(path)
    except AgiqaError as error:
        return Report(path, kind, findings=[Finding(path, f"could not be checked: {error}")])
    if known and not report.is_whole:
        try:
            report.repaired = _mend(kind, path, ledger, known)
        except AgiqaError as error:
            report.refused = str(error)
        report.is_mended = check(path).is_whole
    return report


def _mend(kind: str, path: Path, ledger: Path, known: KnownFingerprints) -> list[str]:
    """Repair a store that is not whole; says in words what was done.

    Raises:
        AgiqaError: it is being written, or cannot be mended from what there is; says what to do.
    """
    if kind == PACK:
        return [restore_pack(path, ledger)]
    done = []
    try:
        read_description(path)
    except (LostDescriptionError, MisnamedShelfError):
        done.append(recover(path, known))
    done += repair_shelf(path)
    if added := _refill(path, known.caches):
        done.append(f"{path}: rows that it lacked taken from packs: {added}")
    return done


def _refill(folder: Path, caches: Sequence[Path]) -> int:
    """Add to a shelf what it lacks and packs have whole under its fingerprint: how many rows."""
    shelf, before = Shelf.at(folder), len(Shelf.at(folder).ids())
    shelf_digest = digest(shelf.fingerprint)
    for path in (path for cache in caches for path in find_packs(cache)):
        if shelf_digest in read_pack_store(path).digests:
            with suppress(PackError):
                add_pack(path, folder.parent, own_prompt_rows(path), {shelf_digest: None})
    return len(shelf.ids()) - before


def restore_pack(path: Path, ledger: Path) -> str:
    """Pack the same images and vectors again from the ledger; says what was done.

    Raises:
        AgiqaError: the pack's metadata is damaged, so that nobody knows what was in it, or the
            ledger lacks rows.
    """
    metadata = read_pack_metadata(path)
    width, dtype, left_out = (metadata.get(key, ()) for key in ("width", "dtype", "left_out"))
    ids = _packed_rows(path, metadata)
    own_rows, vectors = own_prompt_rows(path, ids), []
    for name, fingerprint in zip(metadata["names"], metadata["fingerprints"], strict=True):
        folder, ledger_ids = shelf_folder(ledger, fingerprint), own_rows.get(digest(fingerprint))
        rows = ids if ledger_ids is None else [ledger_ids.get(image_id, "") for image_id in ids]
        recorded = metadata.get("row_ids", {}).get(name)
        if not folder.exists():
            reason = f"{ledger} has no vectors '{name}' of its fingerprint"
        elif "" in rows:
            reason = (
                f"'{name}' asks for the images' prompts, and no images table beside the pack has "
                "those of all its images: run `agiqa prepare`"
            )
        elif recorded not in (None, row_ids_digest(rows)):
            reason = f"the images' own prompts, which '{name}' asks for, have changed since"
        else:
            require_fits(ledger, [(path, Description(fingerprint, width, dtype))])
            vectors.append(Shelf.at(folder).read(rows))
            continue
        raise AgiqaError(f"{path}: cannot be packed again: {reason}; run `agiqa extract`")
    write_pack(
        path,
        metadata["extractor"],
        metadata["names"],
        metadata["fingerprints"],
        ids,
        np.stack(vectors, axis=1),
        left_out,
        metadata.get("row_ids"),
    )
    return f"{path}: {len(ids)} rows packed again from the ledger"


def _packed_rows(path: Path, metadata: Mapping[str, Any]) -> Sequence[str]:
    """The ids of the pack's rows: from itself, else as `extract` would order the table's."""
    with suppress(AgiqaError):
        return open_pack(path).image_ids
    rows, left_out = metadata["rows"], set(metadata.get("left_out", ()))
    if (path.parent / IMAGES_CSV).exists():
        table = read_table(path.parent)
        for by_prompt in (True, False) if "row_ids" in metadata else (False,):
            ids = [i for i in dict.fromkeys(row_ids(table, by_prompt)) if i not in left_out]
            if len(ids) == rows and (not by_prompt or is_by_prompt(metadata, ids)):
                return ids
    raise AgiqaError(
        f"{path}: cannot be packed again: its image ids are damaged, and there is no table of "
        f"{rows} images beside it; run `agiqa extract`"
    )
