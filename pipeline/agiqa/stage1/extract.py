"""Stage 1: every image of a table through an extractor once, into the ledger, then into a pack.

Only rows that the ledger lacks are computed, so adding images, a changed prompt, a DVC clean-up
or a kill never repeats finished work. Images are hashed again first: a file that is not the one
`prepare` checked must not lend its vectors to another's name, and a file that is has been decoded
before.

A pack that is there already gives its rows to a ledger that lacks them, so features that came with
`dvc pull`, or to a new machine, are not computed again. Its rows have the fingerprints that are
asked for, or they are not taken.

Of images that cannot be used one line tells: of what files and prompts show it stops everything
before any work, of what the model does not take it comes when all others are done. Left out instead
are they on request (`--skip-bad`).

What computes is an engine: this process (`one_machine`) or a Ray cluster (`ray_cluster`). Where a
launcher started several processes, each computes its share of the images into segments of its own;
they exchange no messages, and whichever finds the ledger complete at its end writes the packs.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import filelock

from agiqa.core.errors import AgiqaError, printable
from agiqa.core.processes import Process, this_process
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import BadImage, BadImagesError
from agiqa.stage1.batches import not_finite
from agiqa.stage1.extractors import Extractor, asks_image_prompt
from agiqa.stage1.ledger_rows import Job, LedgerRows, RowsToPack, count
from agiqa.stage1.one_machine import Engine, OneMachine
from agiqa.store import (
    IMPORTED,
    PackError,
    add_pack,
    digest,
    is_free,
    pack_beside,
    pushing,
    read_pack_metadata,
    require_replaceable,
    row_ids_digest,
    write_pack,
)
from agiqa.store.files import disk_errors
from agiqa.store.row_ids import Source, sources_of

log = logging.getLogger(__name__)

NO_PROMPT = "has no generation prompt, which the prompt set asks for"


@dataclass(frozen=True)
class Extraction:
    """What an extraction did; of several processes each tells of its share but who packs."""

    store: Path
    images: int  # distinct images in the store, or in the share; by prompt where that is asked
    vectors: int  # P, for each image, what lies in the store of answers included
    width: int  # D
    cached: int  # vectors that were there already
    computed: int  # vectors computed now
    seconds: float
    bad: tuple[BadImage, ...]  # left out by skip_bad
    # Of a share: vectors of others that are not there yet; None: the store is written.
    awaited: int | None = None


def extract(
    table: ImagesTable,
    extractor: Extractor,
    store: Path,
    *,
    ledger: Path | None = None,
    engine: Engine | None = None,
    workers: int = 2,
    skip_bad: bool = False,
    process: Process | None = None,
) -> Extraction:
    """Bring the ledger up to date for `table` and write the pack `store`, and `<store>-answers`.

    Args:
        table: the images; byte-identical files are computed once, or once for each prompt that
            they were made from where a question holds it.
        extractor: what makes the vectors.
        store: the pack to write, `.zarr` or `.h5`.
        ledger: the ledger's folder; by default `store.default_root()`.
        engine: what computes; by default this process.
        workers: processes that decode and preprocess for this process; 0: none.
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
    process = process or this_process()
    sources = sources_of(table, asks_image_prompt(extractor.vectors))
    packs = _packs(store, extractor)
    rows, ids = LedgerRows(extractor, sources, ledger, process.rank), list(sources)
    is_alone = process.world == 1
    engine = engine or OneMachine(workers)
    work = _Work(table.name, store, packs, rows, engine, skip_bad, is_alone)
    if is_alone:
        return work.complete_and_pack(ids)
    share = process.share(ids)
    computed = work.complete(share)
    awaited = count(rows.missing_everywhere(work.good(ids)))
    with _only_packer(store) as is_packer:
        if awaited or not is_packer:
            return work.result(share, computed, awaited)
        return work.complete_and_pack(ids, computed)


@dataclass
class _Work:
    """What an extraction works with, and the images that it cannot use."""

    dataset: str  # its name, for messages
    store: Path
    packs: Mapping[str, Path]  # to be written, by the kind of vectors
    rows: LedgerRows
    engine: Engine
    skip_bad: bool
    whole: bool  # of all the images; then one of them has to be left
    bad: dict[str, str] = field(default_factory=dict)  # by id, the reason
    started: float = field(default_factory=time.monotonic)

    def good(self, ids: Sequence[str]) -> list[str]:
        """Those of the images that are not bad."""
        return [name for name in ids if name not in self.bad]

    def complete_and_pack(self, ids: Sequence[str], computed: int = 0) -> Extraction:
        """Bring the ledger up to date for all images and write the packs; nobody else does."""
        self.rows.drop_damaged(ids)
        computed += self.complete(ids)
        self._write_packs(self.good(ids))
        return self.result(ids, computed)

    def result(self, ids: Sequence[str], computed: int, awaited: int | None = None) -> Extraction:
        """Say what was done for these images."""
        vectors, images = self.rows.extractor.vectors, len(self.good(ids))
        return Extraction(
            store=self.store,
            images=images,
            vectors=len(vectors),
            width=vectors[0].width,
            cached=images * len(vectors) - computed,
            computed=computed,
            seconds=time.monotonic() - self.started,
            bad=bad_images(self.rows.sources, self.bad),
            awaited=awaited,
        )

    def complete(self, ids: Sequence[str]) -> int:
        """Bring to the ledger what it lacks of these images; how many vectors were computed for it.

        BadImagesError unless they may be left out: of what files and prompts tell before any work,
        of what the model does not take when all others are done.
        """
        rows, name = self.rows, self.rows.extractor.name
        self._take_from_packs(rows.missing(ids))
        rows.pull(ids)
        self._refuse(
            without_prompt(rows.sources, rows.missing(ids), rows.extractor),
            "have no generation prompt, which the prompt set asks for",
            "Name the column that has it (agiqa prepare --prompt-column)",
        )
        self._refuse(
            self.engine.changed(rows, rows.missing(self.good(ids))),
            "are not as they were at prepare",
            "Run `agiqa prepare` again",
        )
        ids = self.good(ids)
        jobs = rows.missing(ids)
        vectors = len(ids) * len(rows.shelves)
        log.info(
            "%s: %d images, %d vectors each, %d of %d cached",
            *(name, len(ids), len(rows.shelves), vectors - count(jobs), vectors),
        )
        with pushing(rows.shared, rows.by_shelf(ids) if rows.shared else ()):
            refused = self.engine.compute(rows, jobs) if jobs else {}
        computed = count(jobs) - count(rows.missing(ids))
        what, advice = f"cannot be used with '{name}'", "take another model for them"
        if set(refused.values()) == {not_finite(rows.extractor)}:
            what, advice = not_finite(rows.extractor), "take semantic.precision=float32"
        self._refuse(refused, what, f"All other vectors are kept; {advice}")
        return computed

    def _refuse(self, reasons: Mapping[str, str], what: str, advice: str) -> None:
        """Note bad images, by id the reason.

        Raises:
            BadImagesError: they are not to be left out, or none would be left.
        """
        self.bad |= reasons
        sources = self.rows.sources
        none_left = self.whole and len(self.bad) == len(sources)
        if reasons and (not self.skip_bad or none_left):
            images = bad_images(sources, reasons)
            rest = "; none would be left." if none_left else ", or leave them out with --skip-bad."
            raise BadImagesError(
                f"{len(reasons)} images of '{self.dataset}' {what}: {some_bad(images)}. "
                f"{advice}{rest}",
                images,
            )

    def _take_from_packs(self, jobs: Sequence[Job]) -> None:
        """Add to the ledger what the jobs lack and the packs have whole.

        Raises:
            AgiqaError: a pack's width is not the ledger's, another writer, a full disk.
        """
        rows = self.rows
        wanted: defaultdict[str, set[str]] = defaultdict(set)  # row ids by a fingerprint's digest
        for job in jobs:
            for index in job.wanted:
                made_by = digest(rows.extractor.vectors[index].fingerprint)
                wanted[made_by].update(rows.row_ids(index, job.image_ids))
        for path in self.packs.values():
            if not wanted or is_free(path):
                continue
            try:
                by_name = add_pack(path, rows.root, wanted, rows.sources.values(), rows.rank)
            except PackError as error:
                log.warning("nothing is taken from the old pack: %s", error)
                continue
            for name, column in by_name.items():
                if column.refused:
                    log.info("%s: '%s' is not taken: %s", path, name, column.refused)
            if added := sum(column.added for column in by_name.values()):
                log.info("%s: %d vectors taken from the pack, not computed", path, added)
            if damaged := sum(len(column.damaged) for column in by_name.values()):
                log.warning("%s: %d vectors are damaged and not taken", path, damaged)

    def _write_packs(self, ids: Sequence[str]) -> None:
        """Pack the rows of `ids`, store by store, and merge the ledger's small segments."""
        rows, vectors = self.rows, self.rows.extractor.vectors
        for kind, path in self.packs.items():
            indices = [index for index, vector in enumerate(vectors) if vector.store == kind]
            write_pack(
                path,
                rows.extractor.name,
                [vectors[index].name for index in indices],
                [vectors[index].fingerprint for index in indices],
                ids,
                RowsToPack(rows, indices, ids),
                [name for name in rows.sources if name in self.bad],
                {
                    vectors[index].name: row_ids_digest(rows.row_ids(index, ids))
                    for index in indices
                    if vectors[index].asks_image_prompt
                },
            )
        for shelf in rows.shelves:
            shelf.merge()


def _packs(store: Path, extractor: Extractor) -> dict[str, Path]:
    """The packs to write, by the kind of vectors; refuses what could not be replaced afterwards.

    Raises:
        AgiqaError: something lies there that is not a pack, or one of a newer layout, or one of
            imported vectors, which nobody here could compute again.
    """
    kinds = dict.fromkeys(vector.store for vector in extractor.vectors)
    packs = {kind: pack_beside(store, kind) if kind else store for kind in kinds}
    for path in packs.values():
        require_replaceable(path)
        if not is_free(path) and read_pack_metadata(path)["extractor"] == IMPORTED:
            raise AgiqaError(
                f"{path}: expected vectors of `agiqa extract`, found imported ones, which it "
                "would replace; give another semantic.name"
            )
    return packs


@contextmanager
def _only_packer(store: Path) -> Iterator[bool]:
    """Whether no other process packs this store now; where there are no locks, none is known of."""
    with disk_errors("make", store.parent):
        store.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(store.with_name(f".{store.name}.lock"))
    with ExitStack() as held:
        try:
            held.enter_context(lock.acquire(timeout=0))
        except filelock.Timeout:
            yield False
            return
        except (OSError, NotImplementedError) as error:
            log.debug("%s: %s", store, error)
        yield True


def missing_rows(
    table: ImagesTable, extractor: Extractor, ledger: Path | None = None
) -> tuple[dict[str, Source], list[Job]]:
    """The table's images, and what the ledger lacks of them, here and at the URL it may have.

    Nothing is created in the ledger: a shelf that is not there is one in a temporary folder.
    """
    sources = sources_of(table, asks_image_prompt(extractor.vectors))
    with TemporaryDirectory(prefix="agiqa-") as nowhere:
        rows = LedgerRows(extractor, sources, ledger, absent=Path(nowhere))
        return sources, rows.missing_everywhere(list(sources))


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


def bad_images(sources: Mapping[str, Source], bad: Mapping[str, str]) -> tuple[BadImage, ...]:
    """The images of which reasons are given by id."""
    return tuple(BadImage(printable(sources[name].path), why) for name, why in bad.items())


def some_bad(images: Sequence[BadImage], most: int = 3) -> str:
    """The first few with their reasons, and how many more; a reason of every bad image once."""
    reasons = {image.reason for image in images}
    has_one_reason = reasons <= {NO_PROMPT} or (len(images) > 1 and len(reasons) == 1)
    shown = [
        image.path if has_one_reason else f"{image.path}: {image.reason}" for image in images[:most]
    ]
    more = [f"and {len(images) - most} more"] if len(images) > most else []
    reason = f" ({images[0].reason})" if has_one_reason and reasons != {NO_PROMPT} else ""
    return "; ".join([*shown, *more]) + reason
