"""Stage 1: every image of a table through an extractor once, into the ledger, then into a pack.

Only rows that the ledger lacks are computed, so adding images, a changed prompt, a DVC clean-up
or a kill never repeats finished work. Images are hashed again first: a file that is not the one
`prepare` checked must not lend its vectors to another's name, and a file that is has been decoded
before.

A pack that is there already gives its rows to a ledger that lacks them (`reuse_packs`), so features
that came with `dvc pull` are not computed again.

Where a launcher started several processes, each computes its share of the images into segments of
its own; rank 0 then waits for the others, computes what they left, if anything, and writes the
packs.
"""

import itertools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from agiqa.core.errors import AgiqaError, printable
from agiqa.core.processes import Process, this_process
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import BadImage, BadImagesError, ImageError, image_id
from agiqa.stage1.batches import Job, compute, in_batches, not_finite, row_id
from agiqa.stage1.extractors import Extractor, Sample
from agiqa.stage1.extractors.failures import RefusedError
from agiqa.stage1.other_processes import wait_for_others
from agiqa.stage1.reuse_packs import Packs, pack_of
from agiqa.store import (
    DESCRIPTION,
    Shelf,
    default_root,
    pull,
    pushing,
    row_ids_digest,
    shared_shelves,
    write_pack,
)
from agiqa.store.ledger.roots import shelf_folder
from agiqa.store.ledger.shelf_check import repair_shelf
from agiqa.store.row_ids import Source, sources_of

log = logging.getLogger(__name__)

NO_PROMPT = "has no generation prompt, which the prompt set asks for"


@dataclass(frozen=True)
class Extraction:
    """What an extraction did; of several processes rank 0 tells of all, others of their share."""

    store: Path
    images: int  # distinct images in the store, or in the share
    vectors: int  # P, for each image, what lies in the store of answers included
    width: int  # D
    cached: int  # vectors that were there already
    computed: int  # vectors computed now
    seconds: float
    bad: tuple[BadImage, ...]  # left out by skip_bad
    rank: int  # of the process that tells


def extract(
    table: ImagesTable,
    extractor: Extractor,
    store: Path,
    *,
    ledger: Path | None = None,
    workers: int = 2,
    skip_bad: bool = False,
    process: Process | None = None,
) -> Extraction:
    """Bring the ledger up to date for `table` and write the pack `store`, and `<store>-answers`.

    Of several processes rank 0 alone writes packs.

    Args:
        table: the images; byte-identical files are computed once.
        extractor: what makes the vectors.
        store: the pack to write, `.zarr` or `.h5`.
        ledger: the ledger's folder; by default `store.default_root()`.
        workers: processes that decode and preprocess; 0: none.
        skip_bad: leave images out that are absent, changed since `prepare` or without a generation
            prompt that is asked for; that the model refuses or fails on; or whose vectors are not
            finite.
        process: which of several this is; by default what the launcher's variables say.

    Raises:
        BadImagesError: bad images, and no `skip_bad` or none left: those of which the files tell
            before any work, the others after all work on the good ones.
        AgiqaError: another writer on the ledger, a full disk, a model that fails on every image.
            Finished rows stay in every case.
    """
    started = time.monotonic()
    process = process or this_process()
    sources = sources_of(table)
    ids = list(sources)
    packs = Packs(store, extractor, sources)
    if process.rank == 0:
        packs.require_replaceable()
    rows = _Rows(extractor, open_shelves(extractor, ledger, process.rank), sources)
    if process.world == 1:
        rows.drop_damaged(ids)
    shared = shared_shelves(rows.shelves, own_folder=ledger is not None)
    share = process.share(ids)
    packs.give(rows.missing(share), ledger or default_root(), process.rank)
    pull(shared, rows.known(share))
    told = ids if process.rank == 0 else list(share)
    left = rows.missing(told)
    lacking = _count(left)
    if process.rank == 0 and process.world > 1:
        mine = set(share)
        others = [
            Job(job.wanted, tuple(name for name in job.image_ids if name not in mine))
            for job in left
        ]
        lacking -= packs.count(others)  # they take them from the packs themselves
    how = _How(table.name, workers, skip_bad)
    with pushing(shared, rows.known(share)):
        bad = _complete(share, rows, how, process)
    if process.rank == 0 and process.world > 1:
        wait_for_others(rows.known(ids), rows.shelves, process.world, started)
        lacking += rows.drop_damaged(ids)  # only now: nobody writes any more
        with pushing(shared, rows.known(ids)):
            if rows.missing(ids):
                pull(shared, rows.known(ids), or_warn=True)
                bad = _complete(ids, rows, how, Process())
    computed = lacking - _count(rows.missing(told))
    left_out = [name for name in told if name in bad]
    told = [name for name in told if name not in bad]
    if process.rank == 0:
        _write(store, rows, told, left_out)
        for shelf in rows.shelves:
            shelf.merge()
    return Extraction(
        store=store,
        images=len(told),
        vectors=len(rows.shelves),
        width=extractor.vectors[0].width,
        cached=len(told) * len(rows.shelves) - computed,
        computed=computed,
        seconds=time.monotonic() - started,
        bad=bad_images(sources, bad),
        rank=process.rank,
    )


@dataclass(frozen=True)
class _How:
    """How an extraction is to go about its work."""

    dataset: str
    workers: int
    skip_bad: bool


def _complete(ids: Sequence[str], rows: "_Rows", how: _How, process: Process) -> dict[str, str]:
    """Compute what the ledger lacks of `ids`; by id, why images had to be left out.

    BadImagesError unless `how.skip_bad`: of what files and prompts tell before any work, of what
    the model does not take when all others are done.
    """
    sources, extractor = rows.sources, rows.extractor

    def refuse(bad: Mapping[str, str], what: str, advice: str) -> None:
        none_left = process.world == 1 and len(bad) == len(ids)
        if bad and (not how.skip_bad or none_left):
            rest = "; none would be left." if none_left else ", or leave them out with --skip-bad."
            raise BadImagesError(
                f"{len(bad)} images of '{how.dataset}' {what}: {some_bad(sources, bad)}. "
                f"{advice}{rest}",
                bad_images(sources, bad),
            )

    jobs = rows.missing(ids)
    silent = without_prompt(sources, jobs, extractor)
    refuse(
        silent,
        "have no generation prompt, which the prompt set asks for",
        "Name the column that has it (agiqa prepare --prompt-column)",
    )
    lost = changed(sources, jobs, how.workers)
    refuse(lost, "are not as they were at prepare", "Run `agiqa prepare` again")
    bad = silent | lost
    ids = [name for name in ids if name not in bad]
    jobs = rows.missing(ids)
    log.info(
        "%s: %d images, %d vectors each, %d of %d cached",
        extractor.name,
        len(ids),
        len(rows.shelves),
        len(ids) * len(rows.shelves) - _count(jobs),
        len(ids) * len(rows.shelves),
    )
    if not jobs:
        return bad
    refused = compute(jobs, sources, extractor, rows.shelves, how.workers).bad
    odd = not_finite(extractor)
    if set(refused.values()) == {odd}:
        refuse(refused, odd, "All other vectors are kept; take semantic.precision=float32")
    what = f"cannot be used with '{extractor.name}'"
    refuse(refused, what, "All other vectors are kept; take another model for them")
    return bad | refused


def without_prompt(
    sources: Mapping[str, Source], jobs: Sequence[Job], extractor: Extractor
) -> dict[str, str]:
    """By id, images of the jobs without the generation prompt that a wanted vector asks for."""
    asking = {p for p, vector in enumerate(extractor.vectors) if vector.asks_image_prompt}
    return {
        name: NO_PROMPT
        for job in jobs
        if asking.intersection(job.wanted)
        for name in job.image_ids
        if not (sources[name].image_prompt or "").strip()
    }


def changed(sources: Mapping[str, Source], jobs: Sequence[Job], workers: int) -> dict[str, str]:
    """By id, why the file of an image of the jobs is not the one that was prepared."""
    ids = list(dict.fromkeys(name for job in jobs for name in job.image_ids))

    def check(name: str) -> str | None:
        try:
            same = image_id(sources[name].path) == name
        except ImageError as error:
            return error.reason
        return None if same else "has changed since prepare"

    with ThreadPoolExecutor(max(1, workers)) as pool:
        reasons = zip(ids, pool.map(check, ids), strict=True)
        return {name: why for name, why in reasons if why is not None}


def bad_images(sources: Mapping[str, Source], bad: Mapping[str, str]) -> tuple[BadImage, ...]:
    """The images of which reasons are given by id."""
    return tuple(BadImage(printable(sources[name].path), why) for name, why in bad.items())


def some_bad(sources: Mapping[str, Source], bad: Mapping[str, str], most: int = 3) -> str:
    """The first few with their reasons, and how many more; a reason of every bad image once."""
    images, reasons = bad_images(sources, bad), set(bad.values())
    told = reasons <= {NO_PROMPT} or (len(images) > 1 and len(reasons) == 1)
    shown = [image.path if told else f"{image.path}: {image.reason}" for image in images[:most]]
    more = [f"and {len(images) - most} more"] if len(images) > most else []
    reason = f" ({images[0].reason})" if told and reasons != {NO_PROMPT} else ""
    return "; ".join([*shown, *more]) + reason


def _write(store: Path, rows: "_Rows", ids: Sequence[str], left_out: Sequence[str]) -> None:
    """Pack the rows of `ids`, store by store."""
    extractor = rows.extractor
    for kind in dict.fromkeys(vector.store for vector in extractor.vectors):
        places = [p for p, vector in enumerate(extractor.vectors) if vector.store == kind]
        mine = [extractor.vectors[place] for place in places]
        write_pack(
            pack_of(store, kind),
            extractor.name,
            [vector.name for vector in mine],
            [vector.fingerprint for vector in mine],
            ids,
            _InLedger(rows, places, ids),
            left_out,
            {
                vector.name: row_ids_digest(rows.names(place, ids))
                for place, vector in zip(places, mine, strict=True)
                if vector.asks_image_prompt
            },
        )


def _count(jobs: Sequence[Job]) -> int:
    """Number of vectors to compute."""
    return sum(len(job.wanted) * len(job.image_ids) for job in jobs)


def missing_rows(
    table: ImagesTable, extractor: Extractor, ledger: Path | None = None
) -> tuple[dict[str, Source], list[Job]]:
    """The table's images, and what the ledger lacks of them, here and at the URL it may have.

    Nothing is created in the ledger: a shelf that is not there is one in a temporary folder.
    """
    sources = sources_of(table)
    with TemporaryDirectory(prefix="agiqa-") as nowhere:
        rows = _Rows(extractor, open_shelves(extractor, ledger, absent=Path(nowhere)), sources)
        shared = shared_shelves(rows.shelves, own_folder=ledger is not None)
        for each in shared:
            each.look()
        return sources, rows.missing(list(sources), [each.ids() for each in shared])


def open_shelves(
    extractor: Extractor, ledger: Path | None, rank: int = 0, absent: Path | None = None
) -> list[Shelf]:
    """The ledger's shelf for each of the extractor's vectors; written to as the rank.

    Those that are not there are created: in the folder `absent`, if one is given.

    Raises:
        AgiqaError: two of the vectors are the same.
    """
    for one, other in itertools.combinations(extractor.vectors, 2):
        if one.fingerprint == other.fingerprint:
            raise AgiqaError(
                f"The vectors '{one.name}' and '{other.name}' of '{extractor.name}' are the same: "
                "nothing but their names tells them apart; ask for one of them."
            )
    root, shelves = ledger or default_root(), []
    for vector in extractor.vectors:
        made_by = dict(vector.fingerprint)
        there = (shelf_folder(root, made_by) / DESCRIPTION).exists()
        where = root if there or absent is None else absent
        shelves.append(Shelf.open(where, made_by, vector.width, extractor.precision, rank))
    return shelves


def vectors_of_files(
    sources: Mapping[str, Source], extractor: Extractor, ledger: Path | None, workers: int
) -> list[np.ndarray]:
    """Each of the extractor's vectors `(N, D)` of images by id, through the ledger.

    Args:
        sources: an existing, decodable file for each image id.
        extractor: what makes the vectors.
        ledger: the ledger's folder; by default `store.default_root()`.
        workers: processes that decode and preprocess; 0: none.

    Raises:
        BadImagesError: images that the extractor cannot be used with; the vectors of all others
            are in the ledger.
    """
    shelves = open_shelves(extractor, ledger)
    rows, ids = _Rows(extractor, shelves, sources), list(sources)
    rows.drop_damaged(ids)
    if jobs := rows.missing(ids):
        bad = compute(jobs, sources, extractor, shelves, workers).bad
        if bad:
            raise BadImagesError(f"{some_bad(sources, bad)}.", bad_images(sources, bad))
    return rows.read(ids)


def in_ledger(sources: Mapping[str, Source], extractor: Extractor, ledger: Path | None) -> set[str]:
    """The images, of those by id, whose vectors need not be computed."""
    rows = _Rows(extractor, open_shelves(extractor, ledger), sources)
    return set(sources).difference(*(job.image_ids for job in rows.missing(list(sources))))


def vectors_of_images(
    images: Sequence[Image.Image],
    extractor: Extractor,
    image_prompts: Sequence[str | None] | None = None,
) -> list[np.ndarray]:
    """Each of the extractor's vectors `(N, D)` of images in memory.

    They have no file to know them by, and are not cached: their batches need not be alike to the
    bit, so a single image costs one, not a full batch.

    Raises:
        RefusedError: the extractor cannot be used with one of them; the message has its place.
    """
    wanted = range(len(extractor.vectors))
    prompts = image_prompts or [None] * len(images)

    def preprocessed() -> Iterator[tuple[int, Sample]]:
        for place, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
            with _at(place, len(images)):
                yield place, extractor.preprocess(image, prompt)

    found = [
        np.empty((len(images), vector.width), dtype=extractor.precision)
        for vector in extractor.vectors
    ]
    for places, chosen in in_batches(preprocessed(), min(extractor.batch_size, len(images))):
        for rows, new in zip(found, extractor.extract(chosen, wanted), strict=True):
            with np.errstate(over="ignore"):
                rows[places] = new[: len(places)]
        for place in places:
            if not all(np.isfinite(rows[place]).all() for rows in found):
                with _at(place, len(images)):
                    raise RefusedError(not_finite(extractor))
    return found


@contextmanager
def _at(place: int, count: int) -> Iterator[None]:
    """Say which of several images in memory is refused."""
    try:
        yield
    except RefusedError as error:
        if count == 1:
            raise
        raise RefusedError(f"image {place} of {count}: {error}") from error


class _Rows:
    """The extractor's rows in the ledger, by image."""

    def __init__(
        self, extractor: Extractor, shelves: Sequence[Shelf], sources: Mapping[str, Source]
    ) -> None:
        self.extractor, self.shelves, self.sources = extractor, shelves, sources

    def names(self, index: int, ids: Sequence[str]) -> list[str]:
        """What the shelf of a vector knows the images by."""
        vector = self.extractor.vectors[index]
        return [row_id(vector, name, self.sources[name].image_prompt) for name in ids]

    def known(self, ids: Sequence[str]) -> list[list[str]]:
        """The images' row ids, shelf by shelf."""
        return [self.names(index, ids) for index in range(len(self.shelves))]

    def drop_damaged(self, ids: Sequence[str]) -> int:
        """Make rows that fail their checksum absent, so that they are computed again: how many.

        A damaged segment's other rows are saved (`repair_shelf`).
        """
        count = 0
        for names, shelf in zip(self.known(ids), self.shelves, strict=True):
            present = shelf.ids()
            if shelf.damaged([name for name in names if name in present]):
                for done in repair_shelf(shelf.folder):
                    log.warning("%s", done)
                count += len(present - shelf.ids())
        return count

    def missing(self, ids: Sequence[str], elsewhere: Sequence[frozenset[str]] = ()) -> list[Job]:
        """The images that lack vectors, together with those that lack the same.

        Rows `elsewhere`, shelf by shelf, are not lacking.
        """
        present = [shelf.ids() for shelf in self.shelves]
        if elsewhere:
            present = [here | there for here, there in zip(present, elsewhere, strict=True)]
        known = self.known(ids)
        jobs: dict[tuple[int, ...], list[str]] = {}
        for place, name in enumerate(ids):
            wanted = tuple(p for p, there in enumerate(present) if known[p][place] not in there)
            if wanted:
                jobs.setdefault(wanted, []).append(name)
        return [Job(wanted, tuple(names)) for wanted, names in jobs.items()]

    def read(self, ids: Sequence[str]) -> list[np.ndarray]:
        """Each vector `(N, D)` of the images; every row is checked."""
        return [shelf.read(self.names(index, ids)) for index, shelf in enumerate(self.shelves)]


class _InLedger:
    """Some of the vectors `(N, P, D)` of images, read from the ledger as they are asked for."""

    def __init__(self, rows: _Rows, places: Sequence[int], ids: Sequence[str]) -> None:
        self.rows, self.places, self.ids = rows, places, ids
        width = rows.extractor.vectors[places[0]].width
        self.shape = (len(ids), len(places), width)
        self.dtype = np.dtype(rows.extractor.precision)

    def __getitem__(self, rows: slice) -> np.ndarray:
        ids, shelves = self.ids[rows], self.rows.shelves
        found = [shelves[place].read(self.rows.names(place, ids)) for place in self.places]
        return np.stack(found, axis=1)
