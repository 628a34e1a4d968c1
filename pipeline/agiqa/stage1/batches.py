"""Images through an extractor into the ledger: decoded ahead, batched by shape, written behind.

Worker processes decode and preprocess; the model's process only runs the model; a thread writes.
What stands against one image, from its file to its vectors, ends no other's work: it is noted with
its reason.
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
from typing import Any, NamedTuple, TypeVar

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.core.memory import NoRoomError
from agiqa.core.progress import track
from agiqa.data.images import ImageError, decode
from agiqa.stage1.extractors import Extractor, Sample, Vector
from agiqa.stage1.extractors.failures import FailedError, RefusedError
from agiqa.store import Shelf, ShelfWriter
from agiqa.store.row_ids import Source, prompted_row_id

AHEAD = 4  # batches decoded ahead of the model
WAITING = 8  # batches' worth of images that may wait for others of their shape
TRIES = 3  # images of a model that has never worked: then it is not the images

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Name = TypeVar("Name")


@dataclass(frozen=True)
class Job:
    """Images that lack the same vectors."""

    wanted: tuple[int, ...]
    image_ids: tuple[str, ...]


def row_id(vector: Vector, image_id: str, image_prompt: str | None) -> str:
    """What the ledger knows a vector by: the image's bytes, and its prompt where that is asked."""
    return prompted_row_id(image_id, image_prompt) if vector.asks_image_prompt else image_id


class Computed(NamedTuple):
    """What came of jobs beside the rows."""

    waited: float  # seconds that the model waited for images
    bad: dict[str, str]  # by id, why an image has not got all its vectors


def compute(
    jobs: Sequence[Job],
    sources: Mapping[str, Source],
    extractor: Extractor,
    shelves: Sequence[Shelf],
    workers: int,
) -> Computed:
    """Compute what the jobs lack and add it to the shelves; what is bad is left out and told.

    Raises:
        AgiqaError: a failure that is not about one image: of the model, another writer, the disk.
    """
    waited, bad = Waited(), dict[str, str]()
    model = Trying(extractor, bad)
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
                in_batches(samples_of(job, sources, extractor, workers, bad), extractor.batch_size)
            )
        )
        behind = stack.enter_context(_Behind())
        for job, ids, samples in track(
            stream, f"Extract {extractor.name}", total=total, size=lambda item: len(item[1])
        ):
            for names, rows in model.rows(ids, samples, job.wanted):
                behind.run(_add, extractor, sources, writers, job.wanted, names, rows, bad)
    return Computed(waited.seconds, bad)


class Trying:
    """The model, batch by batch; where it fails on one, the images that it fails on are found.

    Args:
        extractor: of the model.
        bad: by id, why an image has no vectors; added to.
    """

    def __init__(self, extractor: Extractor, bad: dict[str, str]) -> None:
        self.extractor, self.bad = extractor, bad
        self._worked, self._failed = False, 0

    def rows(
        self, ids: Sequence[str], samples: Sequence[Sample], wanted: Sequence[int]
    ) -> Iterator[tuple[Sequence[str], list[np.ndarray]]]:
        """Ids and rows `(N, D)` by wanted vector, of a batch or of its parts that work.

        Args:
            ids: of the first N samples; the others only fill the batch.
            samples: B of one key.
            wanted: places of vectors.

        Raises:
            AgiqaError: the model fails on whatever it is shown.
        """
        try:
            made = self.extractor.extract(samples, wanted)
        except (FailedError, NoRoomError) as error:
            if len(ids) == 1:
                self._failed += 1
                if not self._worked and self._failed >= TRIES:
                    raise AgiqaError(
                        f"{str(error).rstrip('.')}: so it does with each of {self._failed} images."
                    ) from error
                self.bad[ids[0]] = str(error)
                return
        else:
            self._worked = True
            yield ids, [row[: len(ids)] for row in made]
            return
        middle = len(ids) // 2
        for part in (slice(0, middle), slice(middle, len(ids))):
            yield from self.rows(ids[part], filled(samples[part], len(samples)), wanted)


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
    bad: dict[str, str],
) -> None:
    for index, found in zip(wanted, rows, strict=True):
        with np.errstate(over="ignore"):  # what overflows is not finite, and left out
            stored = found.astype(extractor.precision)
        good = np.isfinite(stored).all(axis=1)
        bad |= {ids[place]: not_finite(extractor) for place in np.flatnonzero(~good).tolist()}
        vector = extractor.vectors[index]
        names = [
            row_id(vector, name, sources[name].image_prompt)
            for name, fine in zip(ids, good, strict=True)
            if fine
        ]
        if names:
            writers[index].add(names, stored[good])


def not_finite(extractor: Extractor) -> str:
    """What is wrong with an image whose vectors overflow."""
    return f"gave vectors that are not finite in {extractor.precision}"


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
    return [name for name, _ in found], filled([sample for _, sample in found], size)


def filled(samples: Sequence[Sample], size: int) -> list[Sample]:
    """So many samples: those given, and the first of them again."""
    return [*samples, *[samples[0]] * (size - len(samples))]


def samples_of(
    job: Job,
    sources: Mapping[str, Source],
    extractor: Extractor,
    workers: int,
    bad: dict[str, str],
) -> Iterator[tuple[str, Sample]]:
    """The job's images in their order, decoded and preprocessed; but the `bad` ones, with why."""
    for name, sample in _loaded([(n, sources[n]) for n in job.image_ids], extractor, workers):
        if isinstance(sample, ImageError):
            bad[name] = sample.reason
        elif isinstance(sample, RefusedError):
            bad[name] = str(sample)
        elif isinstance(sample, Exception):
            raise sample
        else:
            yield name, sample


def _loaded(
    items: Sequence[tuple[str, Source]], extractor: Extractor, workers: int
) -> Iterator[tuple[str, Sample | Exception]]:
    images = _Images(extractor, items)
    if workers == 0 or len(items) <= extractor.batch_size:
        for place, (name, _) in enumerate(items):
            yield name, images[place]
        return
    from torch.utils.data import DataLoader

    methods = multiprocessing.get_all_start_methods()
    loader: Any = DataLoader(
        images,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=workers,
        prefetch_factor=max(1, AHEAD * extractor.batch_size // workers),
        collate_fn=_as_it_is,
        worker_init_fn=partial(_leave_with, os.getpid()),
        multiprocessing_context="fork" if "fork" in methods else None,
    )
    for (name, _), sample in zip(items, loader, strict=True):
        yield name, sample


class _Images:
    """A map-style data set of samples; a failure is an item, so that it keeps its type."""

    def __init__(self, extractor: Extractor, items: Sequence[tuple[str, Source]]) -> None:
        self.extractor, self.items = extractor, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Sample | Exception:
        name, source = self.items[row]
        try:  # of the very bytes that the row is named after
            image = source.image or decode(source.path, name)
            return self.extractor.preprocess(image, source.image_prompt)
        except Exception as error:  # raised by the process that asked
            return error


def _leave_with(parent: int, _worker: int) -> None:
    """End this process when its parent has been killed: it may hang on a pipe that nobody reads."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _as_it_is(sample: Any) -> Any:
    return sample
