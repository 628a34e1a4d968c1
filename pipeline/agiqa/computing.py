"""Images through an extractor into the ledger: decoded ahead, batched by shape, written behind.

Worker processes decode and preprocess; the model's process only runs the model; a thread writes.
"""

import logging
import multiprocessing
import os
import threading
import time
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from agiqa.extractors import Extractor, Sample, Vector
from agiqa.feature_store import Shelf, ShelfWriter
from agiqa.images import decode
from agiqa.progress import track
from agiqa.prompts import marks_in

AHEAD = 4  # batches decoded ahead of the model
WAITING = 8  # batches' worth of images that may wait for others of their shape

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Name = TypeVar("Name")


@dataclass(frozen=True)
class Source:
    """An image's file, and the prompt that the image was made from where a table has it."""

    path: Path
    image_prompt: str | None = None


@dataclass(frozen=True)
class Job:
    """Images that lack the same vectors."""

    wanted: tuple[int, ...]
    image_ids: tuple[str, ...]


def row_id(vector: Vector, image_id: str, image_prompt: str | None) -> str:
    """What the ledger knows a vector by: the image's bytes, and its prompt where that is asked."""
    return prompted_row_id(image_id, image_prompt) if vector.asks_image_prompt else image_id


def prompted_row_id(image_id: str, image_prompt: str | None) -> str:
    """What the ledger knows a vector by whose question holds the image's own prompt.

    Prompts that spell marks have ids of their own: earlier versions made special tokens of them.
    """
    plain = "plain text\n" if marks_in(image_prompt or "") else ""
    return sha256(f"{plain}{image_id}\n{image_prompt}".encode()).hexdigest()


def compute(
    jobs: Sequence[Job],
    sources: Mapping[str, Source],
    extractor: Extractor,
    shelves: Sequence[Shelf],
    workers: int,
) -> float:
    """Compute what the jobs lack and add it to the shelves.

    Vectors that are not finite as they would be stored are not added; what is there afterwards
    tells which.

    Returns:
        The seconds that the model waited for images.
    """
    waited = Waited()
    total = sum(len(job.image_ids) for job in jobs)
    with ExitStack() as stack:
        needed = sorted({index for job in jobs for index in job.wanted})
        writers: dict[int, ShelfWriter] = {
            index: stack.enter_context(shelves[index].writer()) for index in needed
        }
        stream = (
            (job, *each)
            for job in jobs
            for each in waited.over(
                in_batches(samples_of(job, sources, extractor, workers), extractor.batch_size)
            )
        )
        behind = stack.enter_context(_Behind())
        for job, ids, samples in track(
            stream, f"Extract {extractor.name}", total=total, size=lambda item: len(item[1])
        ):
            rows = [row[: len(ids)] for row in extractor.extract(samples, job.wanted)]
            behind.run(_add, extractor, sources, writers, job.wanted, ids, rows)
    return waited.seconds


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


def _add(
    extractor: Extractor,
    sources: Mapping[str, Source],
    writers: Mapping[int, ShelfWriter],
    wanted: Sequence[int],
    ids: Sequence[str],
    rows: Sequence[np.ndarray],
) -> None:
    for index, found in zip(wanted, rows, strict=True):
        with np.errstate(over="ignore"):  # what overflows is not finite, and left out
            stored = found.astype(extractor.precision)
        good = np.isfinite(stored).all(axis=1)
        vector = extractor.vectors[index]
        names = [
            row_id(vector, name, sources[name].image_prompt)
            for name, fine in zip(ids, good, strict=True)
            if fine
        ]
        if names:
            writers[index].add(names, stored[good])


class _Behind:
    """Runs one thing after another in a thread; at most two wait, and failures come out."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._pending: list[Future[None]] = []

    def __enter__(self) -> "_Behind":
        return self

    def run(self, work: Any, *given: Any) -> None:
        """Do `work(*given)` soon."""
        while len(self._pending) > 1:
            self._pending.pop(0).result()
        self._pending.append(self._pool.submit(work, *given))

    def __exit__(self, kind: object, *_: object) -> None:
        self._pool.shutdown(wait=True)
        for future in self._pending:
            if kind is None:  # else the body's own failure is the one to show
                future.result()


def in_batches(
    found: Iterable[tuple[Name, Sample]], size: int
) -> Iterator[tuple[list[Name], list[Sample]]]:
    """Full batches of `size` samples with equal keys, and the names of those that are not filling.

    Matrix kernels depend on the batch's shape and a row's last bits with them; with one shape a
    row is the same to the bit whichever batch a resumed extraction finds it in. Where keys differ,
    what is left of each is filled up to a power of two only.
    """
    waiting: dict[Hashable, list[tuple[Name, Sample]]] = defaultdict(list)
    several = False
    for name, sample in found:
        waiting[sample.key].append((name, sample))
        several = several or len(waiting) > 1
        if len(waiting[sample.key]) == size:
            yield _filled(waiting.pop(sample.key), size)
        elif sum(map(len, waiting.values())) >= WAITING * size:
            most = max(waiting, key=lambda key: len(waiting[key]))
            yield _filled(waiting.pop(most), size, several)
    for rest in waiting.values():
        yield _filled(rest, size, several)


def _filled(
    found: Sequence[tuple[Name, Sample]], size: int, several: bool = False
) -> tuple[list[Name], list[Sample]]:
    if several:
        size = min(size, 1 << (len(found) - 1).bit_length())
    samples = [sample for _, sample in found]
    return [name for name, _ in found], samples + samples[:1] * (size - len(samples))


def samples_of(
    job: Job, sources: Mapping[str, Source], extractor: Extractor, workers: int
) -> Iterator[tuple[str, Sample]]:
    """The job's images in their order, decoded and preprocessed."""
    items = [(name, sources[name]) for name in job.image_ids]
    if workers == 0 or len(items) <= extractor.batch_size:
        for name, source in items:
            yield name, _load(extractor, name, source)
        return
    from torch.utils.data import DataLoader

    methods = multiprocessing.get_all_start_methods()
    loader: Any = DataLoader(
        _Images(extractor, items),  # type: ignore[arg-type]
        batch_size=None,
        num_workers=workers,
        prefetch_factor=max(1, AHEAD * extractor.batch_size // workers),
        collate_fn=_as_it_is,
        worker_init_fn=partial(_leave_with, os.getpid()),
        multiprocessing_context="fork" if "fork" in methods else None,
    )
    for (name, _), sample in zip(items, loader, strict=True):
        if isinstance(sample, Exception):
            raise sample
        yield name, sample


class _Images:
    """A map-style data set of samples; a failure is an item, so that it keeps its type."""

    def __init__(self, extractor: Extractor, items: Sequence[tuple[str, Source]]) -> None:
        self.extractor, self.items = extractor, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Sample | Exception:
        try:
            return _load(self.extractor, *self.items[row])
        except Exception as error:  # raised by the process that asked
            return error


def _load(extractor: Extractor, image_id: str, source: Source) -> Sample:
    """The sample of the very bytes that the row is named after."""
    return extractor.preprocess(decode(source.path, image_id), source.image_prompt)


def _leave_with(parent: int, _worker: int) -> None:
    """End this process when its parent has been killed: it may hang on a pipe that nobody reads."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _as_it_is(sample: Any) -> Any:
    return sample
