"""Vectors of images that are in no table, for scoring and explaining: through the ledger, or once.

Images in files are known by their bytes, and their vectors cached; images in memory are not.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.data.images import BadImagesError, image_id
from agiqa.stage1.batches import in_batches, not_finite
from agiqa.stage1.extract import bad_images, some_bad
from agiqa.stage1.extractors import Extractor, Sample, asks_image_prompt
from agiqa.stage1.extractors.contract import RefusedError
from agiqa.stage1.ledger_rows import LedgerRows
from agiqa.stage1.one_machine import Engine
from agiqa.store import Shelf
from agiqa.store.row_ids import Source


@dataclass(frozen=True, eq=False)
class FileVectors:
    """An extractor's vectors of files, through the ledger; its shelves stay open between calls."""

    extractor: Extractor  # what makes the vectors
    ledger: Path | None  # the ledger's folder; by default `store.default_root()`
    engine: Engine  # what computes those that the ledger lacks
    # Shelves by folder, which those who share them read once.
    opened: dict[Path, Shelf] = field(default_factory=dict)

    def __call__(self, sources: Mapping[str, Source]) -> list[np.ndarray]:
        """Each vector `(N, D)` of an existing, decodable file for each row id.

        Raises:
            BadImagesError: images that the extractor cannot be used with; the vectors of all
                others are in the ledger.
        """
        return self.completed(sources).read(list(sources))

    def of_paths(
        self, paths: Sequence[Path], image_prompts: Sequence[str] | None = None
    ) -> list[np.ndarray]:
        """Each vector `(B, D)` float32 of B files, with the texts that they were generated from.

        Raises:
            AgiqaError: the extractor's questions hold that text, and a file has none; or as above.
        """
        prompts: Sequence[str] = [""] * len(paths)
        if asks_image_prompt(self.extractor.vectors):
            prompts = image_prompts or ()
            if len(prompts) != len(paths) or not all(map(str.strip, prompts)):
                raise AgiqaError(
                    f"The questions of '{self.extractor.name}' hold the text that an image was "
                    "generated from: give one for each image."
                )
        given = [Source(image_id(path), path, prompt or None)
                 for path, prompt in zip(paths, prompts, strict=True)]  # fmt: skip
        sources = {source.row_id: source for source in given}
        rows = {name: row for row, name in enumerate(sources)}
        order = [rows[source.row_id] for source in given]
        return [vector[order].astype(np.float32) for vector in self(sources)]

    def completed(self, sources: Mapping[str, Source]) -> LedgerRows:
        """The rows in the ledger, with all of these images; raises the same."""
        rows, ids = self._rows(sources), list(sources)
        rows.drop_damaged(ids)
        jobs = rows.missing(ids)
        if jobs and (bad := bad_images(sources, self.engine.compute(rows, jobs))):
            raise BadImagesError(f"{some_bad(bad)}.", bad)
        return rows

    def in_ledger(self, sources: Mapping[str, Source]) -> set[str]:
        """The images, of those by row id, whose vectors need not be computed."""
        jobs = self._rows(sources).missing(list(sources))
        return set(sources).difference(*(job.image_ids for job in jobs))

    def _rows(self, sources: Mapping[str, Source]) -> LedgerRows:
        return LedgerRows(self.extractor, sources, self.ledger, opened=self.opened)


def vectors_of_images(
    images: Sequence[Image.Image],
    extractor: Extractor,
    image_prompts: Sequence[str | None] | None = None,
) -> list[np.ndarray]:
    """Each of the extractor's vectors `(N, D)` of images in memory.

    They have no file to know them by, and are not cached. They come in batches as those of new
    files to score do (`one_machine`), so that the same pixels give the same bits.

    Raises:
        RefusedError: the extractor cannot be used with one of them; the message has its place.
    """
    wanted = range(len(extractor.vectors))
    prompts = image_prompts or [None] * len(images)

    def preprocessed() -> Iterator[tuple[int, Sample]]:
        for number, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
            with _at(number, len(images)):
                yield number, extractor.preprocess(image, prompt)

    vectors = [
        np.empty((len(images), vector.width), dtype=extractor.precision)
        for vector in extractor.vectors
    ]
    for numbers, samples in in_batches(preprocessed(), extractor.batch_size, whole=False):
        for index, new in enumerate(extractor.extract(samples, wanted)):
            with np.errstate(over="ignore"):
                vectors[index][numbers] = new[: len(numbers)]
        for number in numbers:
            if not all(np.isfinite(rows[number]).all() for rows in vectors):
                with _at(number, len(images)):
                    raise RefusedError(not_finite(extractor))
    return vectors


@contextmanager
def _at(number: int, count: int) -> Iterator[None]:
    """Say which of several images in memory is refused."""
    try:
        yield
    except RefusedError as error:
        if count == 1:
            raise
        raise RefusedError(f"image {number} of {count}: {error}") from error
