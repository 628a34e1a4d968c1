"""Checking stores, and mending what can be mended from the other layer: `agiqa cache verify`.

A shelf drops its bad rows and takes what it lacks from packs; a pack is packed again from the
ledger. What neither layer has is left for `agiqa extract` to compute. A shelf that lost its
description gets it back from whoever has its fingerprint, of whose digest its name holds the first
digits: packs made from it, runs that read them, another ledger, the settings' extractors.

Every checksum, chunk, row and finite number is looked at; memory does not grow with a store. A
check takes no lock and changes nothing, so a shelf may be written meanwhile. A repair writes the
whole rows of a damaged segment into a new one before it removes the old; what is lost is computed
again. `read_pack` promises the same of what it reads, but stops at the first thing that is wrong.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import IMAGES_CSV, read_table
from agiqa.store.files import read_own, size_of
from agiqa.store.fingerprint import Fingerprint, digest
from agiqa.store.ledger.lock import sole_writer, writer_of
from agiqa.store.ledger.segment_rows import Segment, VanishedError, checked_rows, damage, is_whole
from agiqa.store.ledger.segments import SEGMENTS, LocalSegments, rows_of
from agiqa.store.ledger.shelf import (
    DESCRIPTION,
    MOST_BYTES,
    SHORT,
    Description,
    LostDescriptionError,
    Shelf,
    is_layout_1,
    other_shelves,
    parse_description,
    read_description,
    restore_description,
    shelf_folder,
    strangers,
)
from agiqa.store.packs.pack import open_pack, pack_format, put_contents, read_pack_metadata
from agiqa.store.packs.pack_layout import Contents, PackError, PackRows, reading, row_ids_digest
from agiqa.store.row_ids import row_ids
from agiqa.store.upkeep.merge import add_pack, image_ids_of_rows, require_fits
from agiqa.store.upkeep.stores import PACK, SHELF, find_packs, find_runs, is_pack, read_pack_store


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a store."""

    path: Path  # the file
    problem: str  # in words, to be read after the path
    image_ids: tuple[str, ...] = ()  # of the rows that are bad by it, where they are known


@dataclass
class Report:
    """What the check of one store came to."""

    store: Path
    kind: str  # SHELF, PACK
    rows: int = 0  # that were checked
    segments: int = 0  # of a shelf, that were read
    chunks: int = 0  # of a pack's vectors, likewise
    size: int = 0  # bytes of the store
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # worth a line, and nothing wrong
    repaired: list[str] = field(default_factory=list)  # what was done about the findings
    refused: str = ""  # why nothing was
    is_mended: bool = False  # whether nothing is wrong any more

    @property
    def is_whole(self) -> bool:
        """Say whether nothing is wrong in the store."""
        return not self.findings


def check_shelf(folder: Path) -> Report:
    """Read all of the shelf in `folder` and report what is wrong with it.

    AgiqaError where the disk itself cannot be read now: that says nothing about the rows.
    """
    report = Report(folder, SHELF)
    try:
        shelf = Shelf.at(folder)
        report.rows = len(shelf.ids())
    except AgiqaError as error:
        if isinstance(error.__cause__, OSError):
            raise
        message = str(error).removeprefix(f"{folder}: ").removeprefix(f"{folder}/")
        if (folder / DESCRIPTION).exists() or (folder / SEGMENTS).exists() or is_layout_1(folder):
            report.findings.append(Finding(folder, message))
        else:
            report.notes.append("not a shelf: nothing of agiqa is in it")
        return report
    if writer := writer_of(folder):
        report.notes.append(f"{folder}: being written by {writer}")
    report.size = size_of(folder)
    for name, why in sorted(shelf.rows.unusable.items()):
        report.findings.append(Finding(shelf.files.folder / name, f"has {why}"))
    for segment in shelf.rows.segments().values():
        with suppress(VanishedError):  # merged meanwhile: its rows are in a larger one
            report.segments += 1
            problem, bad = damage(shelf.rows, segment)
            if problem:
                path = shelf.files.folder / segment.name
                report.findings.append(Finding(path, problem, tuple(bad)))
    report.notes += [f"{path}: nothing of agiqa; move it away" for path in strangers(folder)]
    return report


def repair_shelf(folder: Path) -> list[str]:
    """Save what can be saved and remove the rest, durably; says in words what was done.

    LockedError where the shelf is being written; AgiqaError where the description is damaged, or
    files are not this shelf's: those are left as they are.
    """
    shelf = Shelf.at(folder)
    shelf.rows.refresh()
    done, damaged = list[str](), list[Segment]()
    for segment in shelf.rows.segments().values():
        with suppress(VanishedError):
            damaged += [segment] if damage(shelf.rows, segment)[0] else []
    cut = [name for name, why in shelf.rows.unusable.items() if "too few" in why]
    if damaged or cut:
        with sole_writer(folder):
            for segment in damaged:
                with suppress(VanishedError):
                    done.append(_repair_segment(shelf, segment))
            shelf.files.remove(cut)
            done += [f"{shelf.files.folder / name}: removed, no row is left in it" for name in cut]
            shelf.rows.refresh()
    if foreign := sorted(shelf.rows.unusable):
        raise AgiqaError(
            f"{shelf.files.folder / foreign[0]}: expected rows of this shelf, found "
            f"{shelf.rows.unusable[foreign[0]]}; move it away"
        )
    return done


def _repair_segment(shelf: Shelf, segment: Segment) -> str:
    """Write a damaged segment's whole rows anew, all of them, and then remove it."""
    saved, named = 0, segment.layout.rows
    for ids, vectors, whole in checked_rows(shelf.rows, segment):
        kept = [ids[row] for row in np.flatnonzero(whole).tolist()]
        if kept:
            shelf.rows.add(kept, vectors[whole])
            saved += len(kept)
    path = shelf.files.folder / segment.name
    if saved < named or not is_whole(shelf.rows, segment):
        shelf.files.remove([segment.name])
    shelf.rows.refresh()
    dropped = f", dropped: {named - saved}" if saved < named else ""
    return f"{path}: written anew, rows saved: {saved}{dropped}"


def check_pack(path: Path) -> Report:
    """Read all of the pack `path` and report what is wrong with it.

    AgiqaError where the disk itself cannot be read now.
    """
    report = Report(path, PACK)
    try:
        metadata, module = read_pack_metadata(path), pack_format(path)
        with reading(path):
            report.size, report.rows = size_of(path), int(metadata["rows"])
            _check_rows(open_pack(path), report)
            if report.is_whole:
                content = module.content_damage(path, metadata)
                report.findings = [Finding(file, problem) for file, problem in content]
    except AgiqaError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno is not None:
            raise
        report.findings.append(Finding(path, str(error).removeprefix(f"{path}: ")))
    return report


def _check_rows(pack: PackRows, report: Report) -> None:
    array = pack.path / "vectors"
    for number, rows in enumerate(pack.chunk_rows()):
        report.chunks += 1
        _, whole = pack.read(rows)
        names = tuple(pack.image_ids[rows.start + row] for row in np.flatnonzero(~whole))
        if pack.chunks[number] is None:
            report.findings.append(Finding(array, f"chunk {number} is missing or cut short", names))
        elif names:
            problem = f"chunk {number} has rows that are missing, changed or not finite"
            report.findings.append(Finding(array, problem, names))


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
            for store in run.stores:
                yield from ((str(run.folder), fingerprint) for fingerprint in store.values())
        for other in other_shelves(shelf):
            with suppress(AgiqaError):
                yield str(other), read_description(other).fingerprint
        yield from (("the settings", fingerprint) for fingerprint in self.of_settings())


def verify_store(path: Path, ledger: Path, known: KnownFingerprints | None = None) -> Report:
    """Read all of a store; with `known`, where packs and lost fingerprints lie, mend it.

    What the disk cannot read now is a finding, too, and nothing is dropped for that.
    """
    check = check_pack if is_pack(path) else check_shelf
    try:
        report = check(path)
    except AgiqaError as error:
        finding = Finding(path, f"could not be checked: {error}")
        return Report(path, PACK if is_pack(path) else SHELF, findings=[finding])
    if known and not report.is_whole:
        try:
            report.repaired = _mend(path, ledger, known)
        except AgiqaError as error:
            report.refused = str(error)
        report.is_mended = check(path).is_whole
    return report


def _mend(path: Path, ledger: Path, known: KnownFingerprints) -> list[str]:
    """Repair a store that is not whole; says in words what was done.

    Raises:
        AgiqaError: it is being written, or cannot be mended from what there is; says what to do.
    """
    if is_pack(path):
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
        folder, rows, reason = shelf_folder(ledger, fingerprint), ids, ""
        if by_prompt and name not in by_prompt:
            rows = [image_ids.get(row_id, "") for row_id in ids]
        if not folder.exists():
            reason = f"{ledger} has no vectors '{name}' of its fingerprint"
        elif "" in rows:
            reason = (
                "its rows are of images with their prompts, and no images table beside the pack "
                "has those of all its images: run `agiqa prepare`"
            )
        if reason:
            raise AgiqaError(f"{path}: cannot be packed again: {reason}; run `agiqa extract`")
        made_by = Description(fingerprint, metadata["width"], metadata["dtype"])
        require_fits(ledger, [(path, made_by)])
        vectors.append(Shelf.at(folder).read(rows))
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
