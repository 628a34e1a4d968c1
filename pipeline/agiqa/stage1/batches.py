"""Images decoded ahead of the model, in batches by shape through it, to rows worth keeping.

Worker processes of this machine decode and preprocess. What stands against one image, from its
bytes to its vectors, ends no other's work: it is noted with its reason.
"""

import multiprocessing
import os
import threading
import time
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.core.memory import NoRoomError
from agiqa.data.images import ImageError, decode
from agiqa.stage1.extractors import Extractor, Sample
from agiqa.stage1.extractors.contract import FailedError, RefusedError
from agiqa.stage1.ledger_rows import Job
from agiqa.store.row_ids import Source

AHEAD = 4  # batches decoded ahead of the model
WAITING = 8  # batches' worth of images that may wait for others of their shape
TRIES = 3  # images of a model that has never worked: then it is not the images

Name = TypeVar("Name")


def samples_of(
    job: Job,
    sources: Mapping[str, Source],
    extractor: Extractor,
    workers: int,
    bad: dict[str, str],
) -> Iterator[tuple[str, Sample]]:
    """The job's images in their order, decoded and preprocessed; but the `bad` ones, with why."""
    for name, sample in _loaded([(n, sources[n]) for n in job.image_ids], extractor, workers):
        if isinstance(sample, Sample):
            yield name, sample
        else:
            bad[name] = why_bad(sample)


def why_bad(error: Exception) -> str:
    """Why an image has no sample; errors that are not about the image are raised."""
    match error:
        case ImageError():
            return error.reason
        case RefusedError():
            return str(error)
    raise error


def _loaded(
    items: Sequence[tuple[str, Source]], extractor: Extractor, workers: int
) -> Iterator[tuple[str, Sample | Exception]]:
    images = _Images(extractor, items)
    if workers == 0 or len(items) <= extractor.batch_size:
        for index in range(len(items)):
            yield images[index]
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
    yield from loader


class _Images:
    """A map-style data set of samples by id; a failure is an item, so that it keeps its type."""

    def __init__(self, extractor: Extractor, items: Sequence[tuple[str, Source]]) -> None:
        self.extractor, self.items = extractor, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> tuple[str, Sample | Exception]:
        name, source = self.items[row]
        try:  # of the very bytes that the row is named after
            image = source.image or decode(source.path, source.image_id)
            return name, self.extractor.preprocess(image, source.image_prompt)
        except Exception as error:  # raised by the process that asked
            return name, error


def _leave_with(parent: int, _worker: int) -> None:
    """End this process when its parent has been killed: it may hang on a pipe that nobody reads."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _as_it_is(sample: Any) -> Any:
    return sample


class NewRows(NamedTuple):
    """Rows of one vector that are ready for the ledger."""

    vector: int  # its place among the extractor's
    image_ids: list[str]
    vectors: np.ndarray  # (N, D), finite, in the precision of the store


@dataclass(eq=False)
class Trying:
    """The model, batch by batch; where it fails on one, the images that it fails on are found."""

    extractor: Extractor
    bad: dict[str, str]  # by id, why an image has no vectors; added to
    _worked: bool = False
    _failed: int = 0

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

    def new_rows(
        self, wanted: Sequence[int], ids: Sequence[str], vectors: Sequence[np.ndarray]
    ) -> Iterator[NewRows]:
        """Keep what is finite of each wanted vector `(N, D)`; the others' images are bad."""
        for index, rows in zip(wanted, vectors, strict=True):
            with np.errstate(over="ignore"):  # what overflows is not finite, and left out
                stored = rows.astype(self.extractor.precision)
            good = np.isfinite(stored).all(axis=1)
            odd = [ids[row] for row in np.flatnonzero(~good).tolist()]
            self.bad |= dict.fromkeys(odd, not_finite(self.extractor))
            if good.any():
                kept = [ids[row] for row in np.flatnonzero(good).tolist()]
                yield NewRows(index, kept, stored[good])


def not_finite(extractor: Extractor) -> str:
    """What is wrong with an image whose vectors overflow."""
    return f"gave vectors that are not finite in {extractor.precision}"


def in_batches(
    samples: Iterable[tuple[Name, Sample]], size: int, *, whole: bool = True
) -> Iterator[tuple[list[Name], list[Sample]]]:
    """Full batches of `size` samples with equal keys, and the names of those that are not filling.

    Matrix kernels depend on the batch's shape and a row's last bits with them; with one shape a
    row is the same to the bit whichever batch a resumed extraction finds it in. Where keys differ,
    what is left of each is filled up to a power of two only; so is all that is left where batches
    need not be `whole`.
    """
    waiting: dict[Hashable, list[tuple[Name, Sample]]] = defaultdict(list)
    several = not whole
    for name, sample in samples:
        waiting[sample.key].append((name, sample))
        several = several or len(waiting) > 1
        if len(waiting[sample.key]) == size:
            yield _batch(waiting.pop(sample.key), size)
        elif sum(map(len, waiting.values())) >= WAITING * size:
            most = waiting.pop(max(waiting, key=lambda key: len(waiting[key])))
            yield _batch(most, _least(most, size) if several else size)
    for rest in waiting.values():
        yield _batch(rest, _least(rest, size) if several else size)


def _least(rest: Sequence[object], size: int) -> int:
    """The power of two that has room for the rest, at most `size`."""
    return min(size, 1 << (len(rest) - 1).bit_length())


def _batch(members: Sequence[tuple[Name, Sample]], size: int) -> tuple[list[Name], list[Sample]]:
    return [name for name, _ in members], filled([sample for _, sample in members], size)


def filled(samples: Sequence[Sample], size: int) -> list[Sample]:
    """So many samples: those given, and the first of them again."""
    return [*samples, *[samples[0]] * (size - len(samples))]
