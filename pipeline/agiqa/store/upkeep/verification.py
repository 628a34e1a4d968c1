"""Checking stores, and mending what can be mended from the other layer: `agiqa cache verify`.

A shelf drops its bad rows and takes what it lacks from packs; a pack is packed again from the
ledger. What neither layer has is left for `agiqa extract` to compute. A shelf that lost its
description gets it back from whoever has its fingerprint, of whose digest its name holds the first
digits: packs made from it, runs that read them, another ledger, the settings' extractors.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import IMAGES_CSV, read_table
from agiqa.store import Fingerprint, PackError, Shelf, add_pack, digest, require_fits
from agiqa.store.adding import image_ids_of_rows
from agiqa.store.checks import Finding, Report, check_pack, check_shelf, repair_shelf
from agiqa.store.ledger.segments import LocalSegments, rows_of
from agiqa.store.ledger.shelf_folders import (
    DESCRIPTION,
    MOST_BYTES,
    SHORT,
    Description,
    LostDescriptionError,
    other_shelves,
    parse_description,
    read_description,
    restore_description,
    shelf_folder,
)
from agiqa.store.own_files import read_own, size_of
from agiqa.store.packs.pack import open_pack, put_contents, read_pack_metadata
from agiqa.store.packs.pack_layout import Contents, row_ids_digest
from agiqa.store.row_ids import row_ids
from agiqa.store.upkeep.stores import PACK, find_packs, find_runs, read_pack_store


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
        for path in find_packs(self.caches):
            for fingerprint in read_pack_store(path).fingerprints:
                yield str(path), fingerprint
        for run in find_runs(self.runs)[0]:
            yield from ((str(run.folder), fingerprint) for fingerprint in run.fingerprints)
        for other in other_shelves(shelf):
            with suppress(AgiqaError):
                yield str(other), read_description(other).fingerprint
        yield from (("the settings", fingerprint) for fingerprint in self.of_settings())


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
    except LostDescriptionError:
        done.append(_recover(path, known))
    done += repair_shelf(path)
    if added := _refill(path, known.caches):
        done.append(f"{path}: rows that it lacked taken from packs: {added}")
    return done


def _recover(shelf: Path, known: KnownFingerprints) -> str:
    """Write a shelf's description anew; says from what.

    AgiqaError where nothing known has its fingerprint: how many rows are unusable, and how to free
    them.
    """
    for origin, fingerprint in known.fingerprints(shelf):
        if restore_description(shelf, fingerprint):
            return f"{shelf / DESCRIPTION}: written anew, out of {origin}"
    rows = sum(rows_of(name) or 0 for name in LocalSegments(shelf).sizes())
    raise AgiqaError(
        f"{shelf}: expected a fingerprint whose digest begins with {shelf.name[-SHORT:]} in a "
        f"pack, a run or the settings, found none; its {rows:,} rows ({size_of(shelf):,} "
        "bytes) cannot be used without: run the same where the project's packs, runs or "
        "params.yaml are (--cache, --runs, --params), or delete the folder to free them"
    )


def _refill(folder: Path, caches: Sequence[Path]) -> int:
    """Add to a shelf what it lacks and packs have whole under its fingerprint: how many rows."""
    shelf_digest, count = digest(read_description(folder).fingerprint), 0
    for path in find_packs(caches):
        if shelf_digest in read_pack_store(path).digests:
            with suppress(PackError):
                vectors = add_pack(path, folder.parent, {shelf_digest: None})
                count += sum(vector.added for vector in vectors.values())
    return count


def restore_pack(path: Path, ledger: Path) -> str:
    """Pack the same images and vectors again from the ledger; says what was done.

    Raises:
        AgiqaError: the pack's metadata is damaged, so that nobody knows what was in it, or the
            ledger lacks rows.
    """
    metadata = read_pack_metadata(path)
    ids, by_prompt = _packed_rows(path, metadata), metadata.get("row_ids", {})
    image_ids, vectors = image_ids_of_rows(path) if by_prompt else {}, []
    for name, fingerprint in zip(metadata["names"], metadata["fingerprints"], strict=True):
        folder, rows = shelf_folder(ledger, fingerprint), ids
        if by_prompt and name not in by_prompt:
            rows = [image_ids.get(row_id, "") for row_id in ids]
        if not folder.exists():
            reason = f"{ledger} has no vectors '{name}' of its fingerprint"
        elif "" in rows:
            reason = (
                "its rows are of images with their prompts, and no images table beside the pack "
                "has those of all its images: run `agiqa prepare`"
            )
        else:
            made_by = Description(fingerprint, metadata["width"], metadata["dtype"])
            require_fits(ledger, [(path, made_by)])
            vectors.append(Shelf.at(folder).read(rows))
            continue
        raise AgiqaError(f"{path}: cannot be packed again: {reason}; run `agiqa extract`")
    put_contents(path, Contents(metadata, ids, np.stack(vectors, axis=1)))
    return f"{path}: {len(ids)} rows packed again from the ledger"


def _packed_rows(path: Path, metadata: Mapping[str, Any]) -> Sequence[str]:
    """The ids of the pack's rows: from itself, else as `extract` would order the table's."""
    with suppress(AgiqaError):
        return open_pack(path).image_ids
    rows, left_out = metadata["rows"], set(metadata.get("left_out", ()))
    if (path.parent / IMAGES_CSV).exists():
        recorded = metadata.get("row_ids", {})
        table_ids = dict.fromkeys(row_ids(read_table(path.parent), bool(recorded)))
        ids = [row_id for row_id in table_ids if row_id not in left_out]
        if len(ids) == rows and {*recorded.values()} <= {row_ids_digest(ids)}:
            return ids
    raise AgiqaError(
        f"{path}: cannot be packed again: its image ids are damaged, and there is no table of "
        f"{rows} images beside it; run `agiqa extract`"
    )
