"""Stage 1: every image of a table through an extractor once, into the ledger, then into a pack.

Only rows that the ledger lacks are computed, so adding images, a changed prompt, a DVC clean-up
or a kill never repeats finished work. Images are hashed again first: a file that is not the one
`prepare` checked must not lend its vectors to another's name, and a file that is has been decoded
before.

A pack that is there already gives its rows to a ledger that lacks them (`reuse_packs`), so features
that came with `dvc pull` are not computed again.

What computes is an engine: this process (`one_machine`) or a Ray cluster (`ray_cluster`). Where a
launcher started several processes, each computes its share of the images into segments of its own;
they exchange no messages, and whichever finds the ledger complete at its end writes the packs.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import filelock

from agiqa.core.processes import Process, this_process
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import BadImage
from agiqa.stage1.bad_images import BadImages, bad_images, without_prompt
from agiqa.stage1.batches import not_finite
from agiqa.stage1.extractors import Extractor, asks_image_prompt
from agiqa.stage1.ledger_rows import Job, LedgerRows, RowsToPack, count
from agiqa.stage1.one_machine import Engine, OneMachine
from agiqa.stage1.reuse_packs import Packs
from agiqa.store import pushing, row_ids_digest, write_pack
from agiqa.store.files import disk_errors
from agiqa.store.row_ids import Source, sources_of

log = logging.getLogger(__name__)


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
    is_alone = process.world == 1
    packs = Packs(store, extractor)
    packs.require_replaceable()
    rows, ids = LedgerRows(extractor, sources, ledger, process.rank), list(sources)
    bad = BadImages(table.name, sources, skip_bad, whole=is_alone)
    work = _Work(rows, packs, engine or OneMachine(workers), bad, time.monotonic())
    if is_alone:
        return _complete_and_pack(work, ids)
    share = process.share(ids)
    computed = _complete(work, share)
    awaited = count(rows.missing_everywhere(bad.good(ids)))
    with _only_packer(store) as is_packer:
        if awaited or not is_packer:
            return _extraction(work, share, computed, awaited)
        return _complete_and_pack(work, ids, computed)


@dataclass(frozen=True)
class _Work:
    """What an extraction works with."""

    rows: LedgerRows
    packs: Packs
    engine: Engine
    bad: BadImages
    started: float


def _complete_and_pack(work: _Work, ids: Sequence[str], computed: int = 0) -> Extraction:
    """Bring the ledger up to date for all images and write the packs; nobody else is at work."""
    work.rows.drop_damaged(ids)
    computed += _complete(work, ids)
    _write_packs(work, work.bad.good(ids))
    return _extraction(work, ids, computed)


def _extraction(
    work: _Work, ids: Sequence[str], computed: int, awaited: int | None = None
) -> Extraction:
    vectors, images = work.rows.extractor.vectors, len(work.bad.good(ids))
    return Extraction(
        store=work.packs.store,
        images=images,
        vectors=len(vectors),
        width=vectors[0].width,
        cached=images * len(vectors) - computed,
        computed=computed,
        seconds=time.monotonic() - work.started,
        bad=bad_images(work.rows.sources, work.bad.reasons),
        awaited=awaited,
    )


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


def _complete(work: _Work, ids: Sequence[str]) -> int:
    """Bring to the ledger what it lacks of these images; how many vectors were computed for it.

    BadImagesError unless they may be left out: of what files and prompts tell before any work, of
    what the model does not take when all others are done.
    """
    rows, bad = work.rows, work.bad
    work.packs.give(rows, rows.missing(ids))
    rows.pull(ids)
    bad.add(
        without_prompt(rows.sources, rows.missing(ids), rows.extractor),
        "have no generation prompt, which the prompt set asks for",
        "Name the column that has it (agiqa prepare --prompt-column)",
    )
    bad.add(
        work.engine.changed(rows, rows.missing(bad.good(ids))),
        "are not as they were at prepare",
        "Run `agiqa prepare` again",
    )
    ids = bad.good(ids)
    jobs = rows.missing(ids)
    vectors = len(ids) * len(rows.shelves)
    log.info(
        "%s: %d images, %d vectors each, %d of %d cached",
        *(rows.extractor.name, len(ids), len(rows.shelves), vectors - count(jobs), vectors),
    )
    with pushing(rows.shared, rows.by_shelf(ids) if rows.shared else ()):
        refused = work.engine.compute(rows, jobs) if jobs else {}
    computed = count(jobs) - count(rows.missing(ids))
    _tell_refused(work, refused)
    return computed


def _tell_refused(work: _Work, refused: Mapping[str, str]) -> None:
    """Note images that the model did not take."""
    extractor = work.rows.extractor
    odd = not_finite(extractor)
    if set(refused.values()) == {odd}:
        advice = "All other vectors are kept; take semantic.precision=float32"
        work.bad.add(refused, odd, advice)
    else:
        advice = "All other vectors are kept; take another model for them"
        work.bad.add(refused, f"cannot be used with '{extractor.name}'", advice)


def _write_packs(work: _Work, ids: Sequence[str]) -> None:
    """Pack the rows of `ids`, store by store, and merge the ledger's small segments."""
    rows, vectors = work.rows, work.rows.extractor.vectors
    for kind, path in work.packs.paths.items():
        indices = [index for index, vector in enumerate(vectors) if vector.store == kind]
        write_pack(
            path,
            rows.extractor.name,
            [vectors[index].name for index in indices],
            [vectors[index].fingerprint for index in indices],
            ids,
            RowsToPack(rows, indices, ids),
            [name for name in rows.sources if name in work.bad.reasons],
            {
                vectors[index].name: row_ids_digest(rows.row_ids(index, ids))
                for index in indices
                if vectors[index].asks_image_prompt
            },
        )
    for shelf in rows.shelves:
        shelf.merge()


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
