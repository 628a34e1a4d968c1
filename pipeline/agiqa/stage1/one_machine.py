"""The engine of one process: decoded ahead of the model, written behind it.

Worker processes decode and preprocess; the model's process only runs the model; a thread writes.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from agiqa.core.progress import track
from agiqa.stage1.bad_images import changed
from agiqa.stage1.batches import Trying, in_batches
from agiqa.stage1.decoding import samples_of
from agiqa.stage1.extractors import Extractor
from agiqa.stage1.ledger_rows import Job, LedgerRows, images_of

Item = TypeVar("Item")


class Engine(Protocol):
    """What computes the rows that the ledger lacks: this process, or a cluster."""

    @property
    def images(self) -> str:
        """A URL below which images lie by their paths in the table; "": in the table's folder."""

    def changed(self, rows: LedgerRows, jobs: Sequence[Job]) -> Mapping[str, str]:
        """By id, why a file is not the one that was prepared, where it is known before the work."""

    def compute(self, rows: LedgerRows, jobs: Sequence[Job]) -> Mapping[str, str]:
        """Add to the ledger what the jobs lack; by id, why an image has not got all its vectors.

        Raises:
            AgiqaError: a failure that is not about one image; finished rows are in the ledger.
        """


@dataclass(frozen=True)
class OneMachine:
    """Compute in this process.

    Args:
        workers: further processes, which decode and preprocess; 0: none.
        several: an extractor that gives the vectors asked for and others in the same pass
            (`extractors.shared_tower`); the others go to the ledger, too.
        whole: fill the last batch up, so that a row is the same to the bit whatever it stands
            beside. Else one image costs one, and its row differs in the last bits.
    """

    workers: int = 2
    several: Extractor | None = None
    whole: bool = True
    images = ""

    def changed(self, rows: LedgerRows, jobs: Sequence[Job]) -> Mapping[str, str]:
        """Hash the files again, in threads."""
        return changed(rows.sources, jobs, self.workers)

    def compute(self, rows: LedgerRows, jobs: Sequence[Job]) -> Mapping[str, str]:
        """Compute the jobs in this process."""
        if self.several is not None:
            given = rows.sources, rows.root, rows.rank
            rows = LedgerRows(self.several, *given, opened=rows.opened)
            jobs = rows.missing(images_of(jobs))
        return compute(jobs, rows, self.workers, whole=self.whole).bad


class Computed(NamedTuple):
    """What came of jobs beside the rows."""

    waited: float  # seconds that the model waited for images
    bad: dict[str, str]  # by id, why an image has not got all its vectors


def compute(jobs: Sequence[Job], rows: LedgerRows, workers: int, *, whole: bool = True) -> Computed:
    """Compute what the jobs lack and add it to the ledger; what is bad is left out and told.

    Raises:
        AgiqaError: a failure that is not about one image: of the model, another writer, the disk.
    """
    extractor, waited, bad = rows.extractor, Waited(), dict[str, str]()
    model = Trying(extractor, bad)
    with ExitStack() as stack:
        writers = {
            index: stack.enter_context(rows.shelves[index].writer())
            for index in sorted({index for job in jobs for index in job.wanted})
        }

        def write(wanted: Sequence[int], ids: Sequence[str], vectors: list[np.ndarray]) -> None:
            for new in model.new_rows(wanted, ids, vectors):
                writers[new.vector].add(rows.row_ids(new.vector, new.image_ids), new.vectors)

        batches = (
            (job.wanted, *batch)
            for job in jobs
            for batch in waited.over(
                in_batches(
                    samples_of(job, rows.sources, extractor, workers, bad),
                    extractor.batch_size,
                    whole=whole,
                )
            )
        )
        behind = stack.enter_context(_Behind())
        total, what = len(images_of(jobs)), f"Extract {extractor.name}"
        for wanted, ids, samples in track(
            batches, what, total=total, size=lambda batch: len(batch[1])
        ):
            for part, vectors in model.rows(ids, samples, wanted):
                behind.run(write, wanted, part, vectors)
    return Computed(waited.seconds, bad)


class Waited:
    """Counts the seconds that an iteration takes to give its items."""

    seconds = 0.0

    def over(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items, one after the other."""
        while True:
            started = time.monotonic()
            item = next(items, None)
            self.seconds += time.monotonic() - started
            if item is None:
                return
            yield item


class _Behind:
    """Runs one thing after another in a thread; at most two wait, and failures come out."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._pending: list[Future[None]] = []

    def __enter__(self) -> "_Behind":
        return self

    def run(self, work: Any, *given: Any) -> None:
        """Queue `work(*given)` for the writing thread."""
        while len(self._pending) > 1:
            self._pending.pop(0).result()
        self._pending.append(self._pool.submit(work, *given))

    def __exit__(self, kind: object, *_: object) -> None:
        self._pool.shutdown(wait=True)
        for future in self._pending:
            if kind is None:  # else the body's own failure is the one to show
                future.result()
