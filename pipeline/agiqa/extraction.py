"""Stage 1: every image of a table through an extractor once, into the ledger, then into a pack.

Only rows that the ledger lacks are computed, so adding images, a changed prompt, a DVC clean-up
or a kill never repeats finished work. Images are hashed again first: a file that is not the one
`prepare` checked must not lend its vectors to another's name, and a file that is has been decoded
before.

Where a launcher started several processes, each computes its share of the images into its own
section of the ledger; rank 0 then waits for the others, computes what they left, if anything, and
writes the pack.
"""

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from agiqa.datasets.table import ImagesTable
from agiqa.errors import AgiqaError
from agiqa.extractors import Extractor
from agiqa.feature_store import DamagedRowsError, Shelf, ShelfWriter, default_root, write_pack
from agiqa.images import BadImage, ImageError, decode, image_id
from agiqa.other_ranks import wait_for_others
from agiqa.progress import track
from agiqa.ranks import Process, this_process

log = logging.getLogger(__name__)

AHEAD = 4  # batches decoded ahead of the model


@dataclass(frozen=True)
class Extraction:
    """What an extraction did; of several processes rank 0 tells of all, others of their share."""

    store: Path
    images: int  # distinct images in the store, or in the share
    vectors: int  # P, for each image
    width: int  # D
    cached: int  # vectors that were there already
    computed: int  # vectors computed now
    seconds: float
    bad: tuple[BadImage, ...]  # left out by skip_bad
    rank: int  # of the process that tells


@dataclass(frozen=True)
class _Job:
    """Images that lack the same vectors."""

    wanted: tuple[int, ...]
    image_ids: tuple[str, ...]


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
    """Bring the ledger up to date for `table` and write the pack `store`, which rank 0 alone does.

    Args:
        table: the images; byte-identical files are computed once.
        extractor: what makes the vectors.
        store: the pack to write, `.zarr` or `.h5`.
        ledger: the ledger's folder; by default `feature_store.default_root()`.
        workers: threads that decode and preprocess.
        skip_bad: leave images out that are absent or changed since `prepare`.
        process: which of several this is; by default what the launcher's variables say.

    Raises:
        AgiqaError: images absent or changed (before any work), another writer on the ledger, a
            full disk, a vector that is not finite. Finished rows stay in every case.
    """
    started = time.monotonic()
    process = process or this_process()
    files = dict(zip(reversed(table.frame["image_id"]), reversed(table.paths()), strict=True))
    ids = list(dict.fromkeys(table.frame["image_id"]))
    share = process.share(ids)
    shelves = open_shelves(extractor, ledger, process.rank)
    if process.world == 1:
        _drop_damaged(ids, shelves)
    told = ids if process.rank == 0 else share
    lacking = _count(_missing(told, shelves))
    bad = _complete(share, table.name, files, extractor, shelves, workers, skip_bad, process)
    if process.rank == 0 and process.world > 1:
        wait_for_others(ids, shelves, process.world, started)
        alone = Process()
        lacking += _drop_damaged(ids, shelves)  # only now: no section is being written to
        if _missing(ids, shelves):
            bad = _complete(ids, table.name, files, extractor, shelves, workers, skip_bad, alone)
    computed = lacking - _count(_missing(told, shelves))
    lost = {image.path for image in bad}
    left_out = [name for name in told if str(files[name]) in lost]
    told = [name for name in told if str(files[name]) not in lost]
    if process.rank == 0:
        write_pack(
            store,
            extractor.name,
            [vector.name for vector in extractor.vectors],
            [vector.fingerprint for vector in extractor.vectors],
            told,
            read_vectors(told, shelves),
            left_out,
        )
    return Extraction(
        store=store,
        images=len(told),
        vectors=len(shelves),
        width=extractor.width,
        cached=len(told) * len(shelves) - computed,
        computed=computed,
        seconds=time.monotonic() - started,
        bad=tuple(bad),
        rank=process.rank,
    )


def _complete(
    ids: Sequence[str],
    name: str,
    files: Mapping[str, Path],
    extractor: Extractor,
    shelves: Sequence[Shelf],
    workers: int,
    skip_bad: bool,
    process: Process,
) -> list[BadImage]:
    """Compute what the ledger lacks of `ids`; the images that had to be left out.

    AgiqaError where images of the data set `name` are absent or changed, unless `skip_bad`.
    """
    jobs = _missing(ids, shelves)
    bad = _changed(files, [image for job in jobs for image in job.image_ids], workers)
    none_left = process.world == 1 and len(bad) == len(ids)
    if bad and (not skip_bad or none_left):
        some = "; ".join(f"{image.path} {image.reason}" for image in bad[:3])
        raise AgiqaError(
            f"{len(bad)} images of '{name}' are not as they were at prepare: {some}. "
            "Run `agiqa prepare` again"
            + (", or leave them out with --skip-bad." if not skip_bad else "; none would be left.")
        )
    lost = {image.path for image in bad}
    jobs = [
        _Job(j.wanted, tuple(i for i in j.image_ids if str(files[i]) not in lost)) for j in jobs
    ]
    count = len(ids) - len(bad)
    log.info(
        "%s: %d images, %d vectors each, %d of %d cached",
        extractor.name,
        count,
        len(shelves),
        count * len(shelves) - _count(jobs),
        count * len(shelves),
    )
    if _count(jobs):
        _compute(jobs, files, extractor, shelves, workers)
    return bad


def open_shelves(extractor: Extractor, ledger: Path | None, rank: int = 0) -> list[Shelf]:
    """The ledger's shelf for each of the extractor's vectors; written to in the rank's section."""
    root = ledger or default_root()
    return [
        Shelf.open(root, dict(vector.fingerprint), extractor.width, extractor.precision, rank)
        for vector in extractor.vectors
    ]


def read_vectors(ids: Sequence[str], shelves: Sequence[Shelf]) -> np.ndarray:
    """Vectors `(N, P, D)` of the images; every row is checked."""
    return np.stack([shelf.read(ids) for shelf in shelves], axis=1)


def vectors_of_files(
    files: Mapping[str, Path], extractor: Extractor, ledger: Path | None, workers: int
) -> np.ndarray:
    """Vectors `(N, P, D)` of images by id, through the ledger: what is there is not computed.

    Args:
        files: an existing, decodable file for each image id.
        extractor: what makes the vectors.
        ledger: the ledger's folder; by default `feature_store.default_root()`.
        workers: threads that decode and preprocess.
    """
    shelves = open_shelves(extractor, ledger)
    ids = list(files)
    _drop_damaged(ids, shelves)
    jobs = _missing(ids, shelves)
    if jobs:
        _compute(jobs, files, extractor, shelves, workers)
    return read_vectors(ids, shelves)


def vectors_of_images(images: Sequence[Image.Image], extractor: Extractor) -> np.ndarray:
    """Vectors `(N, P, D)` of images in memory, which have no file to know them by: not cached."""
    wanted = range(len(extractor.vectors))
    parts = []
    for start in range(0, len(images), extractor.batch_size):
        pixels = [extractor.preprocess(image) for image in images[start:][: extractor.batch_size]]
        filled = pixels + [pixels[0]] * (extractor.batch_size - len(pixels))
        parts.append(extractor.extract(np.stack(filled), wanted)[: len(pixels)])
    return np.concatenate(parts).astype(extractor.precision)


def _drop_damaged(ids: Sequence[str], shelves: Sequence[Shelf]) -> int:
    """Make rows that fail their checksum absent, so that they are computed again: how many."""
    count = 0
    for shelf in shelves:
        there = shelf.ids()
        try:
            shelf.read([name for name in ids if name in there])
        except DamagedRowsError as error:
            shelf.repair()
            count += len(error.image_ids)
    return count


def _missing(ids: Sequence[str], shelves: Sequence[Shelf]) -> list[_Job]:
    """The images that lack vectors, together with those that lack the same."""
    present = [shelf.ids() for shelf in shelves]
    jobs: dict[tuple[int, ...], list[str]] = {}
    for name in ids:
        wanted = tuple(p for p, there in enumerate(present) if name not in there)
        if wanted:
            jobs.setdefault(wanted, []).append(name)
    return [_Job(wanted, tuple(names)) for wanted, names in jobs.items()]


def _count(jobs: Sequence[_Job]) -> int:
    """Number of vectors to compute."""
    return sum(len(job.wanted) * len(job.image_ids) for job in jobs)


def _changed(files: Mapping[str, Path], ids: Sequence[str], workers: int) -> list[BadImage]:
    """Images whose file is absent, or no longer the one that was prepared."""

    def check(name: str) -> BadImage | None:
        try:
            same = image_id(files[name]) == name
        except ImageError as error:
            return BadImage(str(files[name]), error.reason)
        return None if same else BadImage(str(files[name]), "has changed since prepare")

    with ThreadPoolExecutor(workers) as pool:
        return [found for found in pool.map(check, ids) if found is not None]


def _compute(
    jobs: Sequence[_Job],
    files: Mapping[str, Path],
    extractor: Extractor,
    shelves: Sequence[Shelf],
    workers: int,
) -> None:
    total = sum(len(job.image_ids) for job in jobs)
    batches = sum(-(-len(job.image_ids) // extractor.batch_size) for job in jobs)
    with ExitStack() as stack:
        needed = sorted({index for job in jobs for index in job.wanted})
        writers: dict[int, ShelfWriter] = {
            index: stack.enter_context(shelves[index].writer()) for index in needed
        }
        pool = stack.enter_context(ThreadPoolExecutor(workers, thread_name_prefix="decode"))
        stream = _Sized(_decoded(jobs, files, extractor, pool), batches)
        for job, names, pixels in track(
            stream, f"Extract {extractor.name}", unit=extractor.batch_size, total=total
        ):
            rows = extractor.extract(pixels, job.wanted)[: len(names)]
            with np.errstate(over="ignore"):  # an overflow is refused by the writer, with its image
                stored = rows.astype(extractor.precision)
            for place, index in enumerate(job.wanted):
                writers[index].add(names, stored[:, place])


_Batch = tuple[_Job, list[str], np.ndarray]


class _Sized:
    """A stream of batches that knows its length, for the progress bar."""

    def __init__(self, stream: Iterator[_Batch], length: int) -> None:
        self._stream, self._length = stream, length

    def __iter__(self) -> Iterator[_Batch]:
        return self._stream

    def __len__(self) -> int:
        return self._length


def _decoded(
    jobs: Sequence[_Job], files: Mapping[str, Path], extractor: Extractor, pool: ThreadPoolExecutor
) -> Iterator[_Batch]:
    """Batches of pixels `(B, 3, H, W)`, always full: the last is filled up with its first image.

    Matrix kernels depend on the batch's shape and a row's last bits with them; with one shape a
    row is the same to the bit whichever batch a resumed extraction finds it in.
    """
    size = extractor.batch_size
    plan = [
        (job, list(job.image_ids[start : start + size]))
        for job in jobs
        for start in range(0, len(job.image_ids), size)
    ]

    def load(name: str) -> np.ndarray:
        return extractor.preprocess(decode(files[name]))

    waiting: deque[list[Future[np.ndarray]]] = deque()
    for index, (job, names) in enumerate(plan):
        while len(waiting) < AHEAD and index + len(waiting) < len(plan):
            waiting.append([pool.submit(load, name) for name in plan[index + len(waiting)][1]])
        pixels = [future.result() for future in waiting.popleft()]
        pixels += [pixels[0]] * (size - len(pixels))
        yield job, names, np.stack(pixels)
