"""Stage 1: every image of a table through an extractor once, into the ledger, then into a pack.

Only rows that the ledger lacks are computed, so adding images, a changed prompt, a DVC clean-up
or a kill never repeats finished work. Images are hashed again first: a file that is not the one
`prepare` checked must not lend its vectors to another's name, and a file that is has been decoded
before.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from agiqa.computing import Job, Source, compute, in_batches, row_id
from agiqa.datasets.table import ImagesTable
from agiqa.errors import AgiqaError
from agiqa.extractors import Extractor
from agiqa.feature_store import DamagedRowsError, Shelf, default_root, pack_beside, write_pack
from agiqa.images import BadImage, ImageError, image_id

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Extraction:
    """What an extraction did."""

    store: Path
    images: int  # distinct images in the store
    vectors: int  # P, for each image, what lies in the store of answers included
    width: int  # D
    cached: int  # vectors that were there already
    computed: int  # vectors computed now
    seconds: float
    bad: tuple[BadImage, ...]  # left out by skip_bad


def extract(
    table: ImagesTable,
    extractor: Extractor,
    store: Path,
    *,
    ledger: Path | None = None,
    workers: int = 2,
    skip_bad: bool = False,
) -> Extraction:
    """Bring the ledger up to date for `table` and write the pack `store`, and `<store>-answers`.

    Args:
        table: the images; byte-identical files are computed once.
        extractor: what makes the vectors.
        store: the pack to write, `.zarr` or `.h5`.
        ledger: the ledger's folder; by default `feature_store.default_root()`.
        workers: processes that decode and preprocess; 0: none.
        skip_bad: leave images out that are absent or changed since `prepare`, or whose vectors
            are not finite.

    Raises:
        AgiqaError: images absent or changed (before any work), another writer on the ledger, a
            full disk, vectors that are not finite (after all work). Finished rows stay in every
            case.
    """
    started = time.monotonic()
    sources = sources_of(table)
    ids = list(sources)
    shelves = open_shelves(extractor, ledger)
    rows = _Rows(extractor, shelves, sources)
    rows.drop_damaged(ids)
    jobs = rows.missing(ids)
    bad = _changed(sources, [name for job in jobs for name in job.image_ids], workers)
    if bad and (not skip_bad or len(bad) == len(ids)):
        some = "; ".join(f"{image.path} {image.reason}" for image in bad[:3])
        raise AgiqaError(
            f"{len(bad)} images of '{table.name}' are not as they were at prepare: {some}. "
            "Run `agiqa prepare` again"
            + (", or leave them out with --skip-bad." if not skip_bad else "; none would be left.")
        )
    lost = {image.path for image in bad}
    left_out = [name for name in ids if str(sources[name].path) in lost]
    ids = [name for name in ids if str(sources[name].path) not in lost]
    jobs = rows.missing(ids)
    wanted = sum(len(job.wanted) * len(job.image_ids) for job in jobs)
    log.info(
        "%s: %d images, %d vectors each, %d of %d cached",
        extractor.name,
        len(ids),
        len(shelves),
        len(ids) * len(shelves) - wanted,
        len(ids) * len(shelves),
    )
    if jobs:
        compute(jobs, sources, extractor, shelves, workers)
    odd = [name for job in rows.missing(ids) for name in job.image_ids]
    if odd and (not skip_bad or len(odd) == len(ids)):
        some = ", ".join(str(sources[name].path) for name in odd[:3])
        raise AgiqaError(
            f"{len(odd)} images of '{table.name}' gave vectors that are not finite in "
            f"{extractor.precision}: {some}. Take semantic.precision=float32, or leave them out "
            "with --skip-bad; all other vectors are kept."
        )
    bad += [BadImage(str(sources[name].path), "gave vectors that are not finite") for name in odd]
    left_out += odd
    ids = [name for name in ids if name not in set(odd)]
    found = rows.read(ids)
    for kind in dict.fromkeys(vector.store for vector in extractor.vectors):
        places = [p for p, vector in enumerate(extractor.vectors) if vector.store == kind]
        mine = [extractor.vectors[place] for place in places]
        write_pack(
            pack_beside(store, kind) if kind else store,
            extractor.name,
            [vector.name for vector in mine],
            [vector.fingerprint for vector in mine],
            ids,
            np.stack([found[place] for place in places], axis=1),
            left_out,
        )
    return Extraction(
        store=store,
        images=len(ids),
        vectors=len(shelves),
        width=extractor.vectors[0].width,
        cached=len(ids) * len(shelves) - wanted,
        computed=wanted,
        seconds=time.monotonic() - started,
        bad=tuple(bad),
    )


def missing_rows(
    table: ImagesTable, extractor: Extractor, ledger: Path | None = None
) -> tuple[dict[str, Source], list[Job]]:
    """The table's images, and what the ledger lacks of them."""
    sources = sources_of(table)
    rows = _Rows(extractor, open_shelves(extractor, ledger), sources)
    return sources, rows.missing(list(sources))


def sources_of(table: ImagesTable) -> dict[str, Source]:
    """Each distinct image of the table by id: the first row that has it."""
    prompts = table.frame["prompt"] if "prompt" in table.frame else [None] * len(table.frame)
    found: dict[str, Source] = {}
    for name, path, prompt in zip(table.frame["image_id"], table.paths(), prompts, strict=True):
        found.setdefault(name, Source(path, prompt if isinstance(prompt, str) else None))
    return found


def open_shelves(extractor: Extractor, ledger: Path | None) -> list[Shelf]:
    """The ledger's shelf for each of the extractor's vectors."""
    root = ledger or default_root()
    return [
        Shelf.open(root, dict(vector.fingerprint), vector.width, extractor.precision)
        for vector in extractor.vectors
    ]


def vectors_of_files(
    sources: Mapping[str, Source], extractor: Extractor, ledger: Path | None, workers: int
) -> list[np.ndarray]:
    """Each of the extractor's vectors `(N, D)` of images by id, through the ledger.

    Args:
        sources: an existing, decodable file for each image id.
        extractor: what makes the vectors.
        ledger: the ledger's folder; by default `feature_store.default_root()`.
        workers: processes that decode and preprocess; 0: none.

    Raises:
        AgiqaError: vectors that are not finite.
    """
    shelves = open_shelves(extractor, ledger)
    rows, ids = _Rows(extractor, shelves, sources), list(sources)
    rows.drop_damaged(ids)
    if jobs := rows.missing(ids):
        compute(jobs, sources, extractor, shelves, workers)
    if odd := [name for job in rows.missing(ids) for name in job.image_ids]:
        raise AgiqaError(
            f"{sources[odd[0]].path}: its vectors are not finite in {extractor.precision}; leave "
            "it out."
        )
    return rows.read(ids)


def vectors_of_images(
    images: Sequence[Image.Image],
    extractor: Extractor,
    image_prompts: Sequence[str | None] | None = None,
) -> list[np.ndarray]:
    """Each of the extractor's vectors `(N, D)` of images in memory.

    They have no file to know them by, and are not cached.
    """
    wanted = range(len(extractor.vectors))
    prompts = image_prompts or [None] * len(images)
    samples = (
        (place, extractor.preprocess(image, prompt))
        for place, (image, prompt) in enumerate(zip(images, prompts, strict=True))
    )
    found = [
        np.empty((len(images), vector.width), dtype=extractor.precision)
        for vector in extractor.vectors
    ]
    for places, chosen in in_batches(samples, extractor.batch_size):
        for rows, new in zip(found, extractor.extract(chosen, wanted), strict=True):
            rows[places] = new[: len(places)]
    return found


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

    def drop_damaged(self, ids: Sequence[str]) -> None:
        """Make rows that fail their checksum absent, so that they are computed again; logged."""
        for index, shelf in enumerate(self.shelves):
            there = shelf.ids()
            try:
                shelf.read([name for name in self.names(index, ids) if name in there])
            except DamagedRowsError:
                shelf.repair()

    def missing(self, ids: Sequence[str]) -> list[Job]:
        """The images that lack vectors, together with those that lack the same."""
        present = [shelf.ids() for shelf in self.shelves]
        known = [self.names(index, ids) for index in range(len(present))]
        jobs: dict[tuple[int, ...], list[str]] = {}
        for place, name in enumerate(ids):
            wanted = tuple(p for p, there in enumerate(present) if known[p][place] not in there)
            if wanted:
                jobs.setdefault(wanted, []).append(name)
        return [Job(wanted, tuple(names)) for wanted, names in jobs.items()]

    def read(self, ids: Sequence[str]) -> list[np.ndarray]:
        """Each vector `(N, D)` of the images; every row is checked."""
        return [shelf.read(self.names(index, ids)) for index, shelf in enumerate(self.shelves)]


def _changed(sources: Mapping[str, Source], ids: Sequence[str], workers: int) -> list[BadImage]:
    """Images whose file is absent, or no longer the one that was prepared."""

    def check(name: str) -> BadImage | None:
        path = sources[name].path
        try:
            same = image_id(path) == name
        except ImageError as error:
            return BadImage(str(path), error.reason)
        return None if same else BadImage(str(path), "has changed since prepare")

    with ThreadPoolExecutor(max(1, workers)) as pool:
        return [found for found in pool.map(check, ids) if found is not None]
