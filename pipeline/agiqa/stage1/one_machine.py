"""The engine of one process: decoded ahead of the model, written behind it.

Worker processes decode and preprocess; the model's process only runs the model; a thread writes.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from agiqa.core.progress import track
from agiqa.data.images import ImageError, image_id
from agiqa.stage1.batches import Trying, in_batches, samples_of
from agiqa.stage1.extractors import Extractor, Sample
from agiqa.stage1.ledger_rows import Job, LedgerRows, images_of
from agiqa.store.row_ids import Source


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
    """Compute missing rows in this process, decoded ahead by others."""

    workers: int = 2  # further processes, which decode and preprocess; 0: none
    # Gives the vectors asked for and others in the same pass (`image_text.shared_tower`); the
    # others go to the ledger, too.
    several: Extractor | None = None
    # Fill the last batch up, so that a row is the same to the bit whatever it stands beside. Else
    # one image costs one, and its row differs in the last bits.
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
        extractor, bad, written = rows.extractor, dict[str, str](), deque[Future[None]]()
        model = Trying(extractor, bad)
        with ExitStack() as stack:
            writers = rows.writers(stack, jobs)

            def write(wanted: Sequence[int], ids: Sequence[str], vectors: list[np.ndarray]) -> None:
                for new in model.new_rows(wanted, ids, vectors):
                    writers[new.vector].add(rows.row_ids(new.vector, new.image_ids), new.vectors)

            behind = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="write"))
            total, what = len(images_of(jobs)), f"Extract {extractor.name}"
            batches = self._batches(rows, jobs, bad)
            for wanted, ids, samples in track(
                batches, what, total=total, size=lambda batch: len(batch[1])
            ):
                for part, vectors in model.rows(ids, samples, wanted):
                    if len(written) > 1:  # at most two wait
                        written.popleft().result()
                    written.append(behind.submit(write, wanted, part, vectors))
            for last in written:  # where the loop fails, its own failure is the one to show
                last.result()
        return bad

    def _batches(
        self, rows: LedgerRows, jobs: Sequence[Job], bad: dict[str, str]
    ) -> Iterator[tuple[Sequence[int], list[str], list[Sample]]]:
        """Yield wanted vectors, ids and samples of each batch; `bad` is added to."""
        extractor = rows.extractor
        for job in jobs:
            samples = samples_of(job, rows.sources, extractor, self.workers, bad)
            for ids, batch in in_batches(samples, extractor.batch_size, whole=self.whole):
                yield job.wanted, ids, batch


def changed(sources: Mapping[str, Source], jobs: Sequence[Job], workers: int) -> dict[str, str]:
    """By id, why the file of an image of the jobs is not the one that was prepared."""

    def check(name: str) -> tuple[str, str | None]:
        try:
            same = image_id(sources[name].path) == sources[name].image_id
        except ImageError as error:
            return name, error.reason
        return name, None if same else "has changed since prepare"

    with ThreadPoolExecutor(max(1, workers)) as pool:
        return {name: why for name, why in pool.map(check, images_of(jobs)) if why is not None}
