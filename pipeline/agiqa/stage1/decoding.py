"""Images decoded and preprocessed ahead of the model, in worker processes of this machine."""

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from agiqa.data.images import ImageError, decode
from agiqa.stage1.extractors import Extractor, Sample
from agiqa.stage1.extractors.failures import RefusedError
from agiqa.stage1.ledger_rows import Job
from agiqa.store.row_ids import Source

AHEAD = 4  # batches decoded ahead of the model


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
