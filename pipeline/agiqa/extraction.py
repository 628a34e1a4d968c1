"""Stage 1: every image of a table through an extractor once, into the ledger, then into a pack.

Only rows that the ledger lacks are computed, so adding images, a changed prompt, a DVC clean-up
or a kill never repeats finished work. Images are hashed again first: a file that is not the one
`prepare` checked must not lend its vectors to another's name, and a file that is has been decoded
before.
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
from agiqa.progress import track

log = logging.getLogger(__name__)

AHEAD = 4  # batches decoded ahead of the model


@dataclass(frozen=True)
class Extraction:
    """What an extraction did."""

    store: Path
    images: int  # distinct images in the store
    vectors: int  # P, for each image
    width: int  # D
    cached: int  # vectors that were there already
    computed: int  # vectors computed now
    seconds: float
    bad: tuple[BadImage, ...]  # left out by skip_bad


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
) -> Extraction:
    """Bring the ledger up to date for `table` and write the pack `store`.

    Args:
        table: the images; byte-identical files are computed once.
        extractor: what makes the vectors.
        store: the pack to write, `.zarr` or `.h5`.
        ledger: the ledger's folder; by default `feature_store.default_root()`.
        workers: threads that decode and preprocess.
        skip_bad: leave images out that are absent or changed since `prepare`.

    Raises:
        AgiqaError: images absent or changed (before any work), another writer on the ledger, a
            full disk, a vector that is not finite. Finished rows stay in every case.
    """
    started = time.monotonic()
    files = dict(zip(reversed(table.frame["image_id"]), reversed(table.paths()), strict=True))
    ids = list(dict.fromkeys(table.frame["image_id"]))
    shelves = open_shelves(extractor, ledger)
    _drop_damaged(ids, shelves)
    jobs = _missing(ids, shelves)
    bad = _changed(files, [name for job in jobs for name in job.image_ids], workers)
    if bad and (not skip_bad or len(bad) == len(ids)):
        some = "; ".join(f"{image.path} {image.reason}" for image in bad[:3])
        raise AgiqaError(
            f"{len(bad)} images of '{table.name}' are not as they were at prepare: {some}. "
            "Run `agiqa prepare` again"
            + (", or leave them out with --skip-bad." if not skip_bad else "; none would be left.")
        )
    lost = {image.path for image in bad}
    left_out = [name for name in ids if str(files[name]) in lost]
    ids = [name for name in ids if str(files[name]) not in lost]
    jobs = [
        _Job(j.wanted, tuple(i for i in j.image_ids if str(files[i]) not in lost)) for j in jobs
    ]
    computed = sum(len(job.wanted) * len(job.image_ids) for job in jobs)
    log.info(
        "%s: %d images, %d vectors each, %d of %d cached",
        extractor.name,
        len(ids),
        len(shelves),
        len(ids) * len(shelves) - computed,
        len(ids) * len(shelves),
    )
    if computed:
        _compute(jobs, files, extractor, shelves, workers)
    vectors = read_vectors(ids, shelves)
    write_pack(
        store,
        extractor.name,
        [vector.name for vector in extractor.vectors],
        [vector.fingerprint for vector in extractor.vectors],
        ids,
        vectors,
        left_out,
    )
    return Extraction(
        store=store,
        images=len(ids),
        vectors=len(shelves),
        width=extractor.width,
        cached=len(ids) * len(shelves) - computed,
        computed=computed,
        seconds=time.monotonic() - started,
        bad=tuple(bad),
    )


def open_shelves(extractor: Extractor, ledger: Path | None) -> list[Shelf]:
    """The ledger's shelf for each of the extractor's vectors."""
    root = ledger or default_root()
    return [
        Shelf.open(root, dict(vector.fingerprint), extractor.width, extractor.precision)
        for vector in extractor.vectors
    ]


def read_vectors(ids: Sequence[str], shelves: Sequence[Shelf]) -> np.ndarray:
    """Vectors `(N, P, D)` of the images; every row is checked."""
    return np.stack([shelf.read(ids) for shelf in shelves], axis=1)


def vectors_of_files(
    files: Mapping[str, Path],
    extractor: Extractor,
    ledger: Path | None,
    workers: int,
    image_prompts: Mapping[str, str] | None = None,
) -> list[np.ndarray]:
    """Each vector `(N, D)` of images by id, through the ledger: what is there is not computed.

    Args:
        files: an existing, decodable file for each image id.
        extractor: what makes the vectors.
        ledger: the ledger's folder; by default `feature_store.default_root()`.
        workers: threads that decode and preprocess.
        image_prompts: the text that each image was generated from, for extractors that ask.
    """
    if image_prompts and any(vector.asks_image_prompt for vector in extractor.vectors):
        images = [decode(path) for path in files.values()]
        return vectors_of_images(images, extractor, [image_prompts[name] for name in files])
    shelves = open_shelves(extractor, ledger)
    ids = list(files)
    _drop_damaged(ids, shelves)
    jobs = _missing(ids, shelves)
    if jobs:
        _compute(jobs, files, extractor, shelves, workers)
    return [shelf.read(ids) for shelf in shelves]


def vectors_of_images(
    images: Sequence[Image.Image],
    extractor: Extractor,
    image_prompts: Sequence[str] | None = None,
) -> list[np.ndarray]:
    """Each vector `(N, D)` of images in memory, which have no file to know them by: not cached."""
    wanted, size = range(len(extractor.vectors)), extractor.batch_size
    prompts: Sequence[str | None] = image_prompts or [None] * len(images)
    asked = list(zip(images, prompts, strict=True))
    parts = []
    for start in range(0, len(images), size):
        pixels = [extractor.preprocess(*each) for each in asked[start : start + size]]
        filled = pixels + [pixels[0]] * (size - len(pixels))
        parts.append(extractor.extract(np.stack(filled), wanted)[: len(pixels)])
    return list(np.moveaxis(np.concatenate(parts).astype(extractor.precision), 1, 0))


def _drop_damaged(ids: Sequence[str], shelves: Sequence[Shelf]) -> None:
    """Make rows that fail their checksum absent, so that they are computed again; logged."""
    for shelf in shelves:
        there = shelf.ids()
        try:
            shelf.read([name for name in ids if name in there])
        except DamagedRowsError:
            shelf.repair()


def _missing(ids: Sequence[str], shelves: Sequence[Shelf]) -> list[_Job]:
    """The images that lack vectors, together with those that lack the same."""
    present = [shelf.ids() for shelf in shelves]
    jobs: dict[tuple[int, ...], list[str]] = {}
    for name in ids:
        wanted = tuple(p for p, there in enumerate(present) if name not in there)
        if wanted:
            jobs.setdefault(wanted, []).append(name)
    return [_Job(wanted, tuple(names)) for wanted, names in jobs.items()]


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
