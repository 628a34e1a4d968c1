"""Vectors of images to be explained: of files through the ledger, of images in memory once.

Scoring, maps and neighbours want the same vectors of an image; those of the last images in memory
are kept, as their scores are not worth a second forward pass.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.data.images import as_rgb, decode, image_id
from agiqa.stage1.extractors import Extractor, asks_image_prompt
from agiqa.stage1.one_machine import OneMachine
from agiqa.stage1.vectors import FileVectors, vectors_of_images
from agiqa.store.row_ids import Source

KEPT = 64  # images in memory whose vectors are kept, for each extractor

Pictures = Sequence[Path | str | Image.Image]


class ImageVectors:
    """Vectors of images by one extractor."""

    def __init__(self, extractor: Extractor, ledger: Path | None, workers: int) -> None:
        self.extractor = extractor
        self.of_files = FileVectors(extractor, ledger, OneMachine(workers))
        self.asks_image_prompt = asks_image_prompt(extractor.vectors)
        self._kept: dict[tuple[str, str], list[np.ndarray]] = {}  # the last used are last

    def __call__(
        self, images: Pictures, image_prompts: Sequence[str] | None = None
    ) -> list[np.ndarray]:
        """The extractor's vectors, each `(B, D)` float32.

        Raises:
            AgiqaError: a file cannot be decoded; or the extractor's questions hold the text that an
                image was generated from, and there is none.
        """
        prompts = self._prompts(images, image_prompts)
        if in_memory(images):
            by_image = self._of_images(images, prompts)
        else:
            by_image = self._of_files([Path(str(image)) for image in images], prompts)
        return [np.stack(rows).astype(np.float32) for rows in zip(*by_image, strict=True)]

    def _prompts(self, images: Pictures, given: Sequence[str] | None) -> list[str]:
        if not self.asks_image_prompt:
            return [""] * len(images)
        if given is None or len(given) != len(images) or not all(text.strip() for text in given):
            raise AgiqaError(
                f"The questions of '{self.extractor.name}' hold the text that an image was "
                "generated from: give one for each image."
            )
        return list(given)

    def _of_files(self, paths: Sequence[Path], prompts: Sequence[str]) -> list[list[np.ndarray]]:
        given = [
            Source(image_id(path), path, prompt or None)
            for path, prompt in zip(paths, prompts, strict=True)
        ]
        sources = {source.row_id: source for source in given}
        vectors = self.of_files(sources)
        rows = {name: row for row, name in enumerate(sources)}
        return [[np.asarray(vector[rows[source.row_id]]) for vector in vectors] for source in given]

    def _of_images(
        self, images: Sequence[Image.Image], prompts: Sequence[str]
    ) -> list[list[np.ndarray]]:
        keys = [(_digest(image), prompt) for image, prompt in zip(images, prompts, strict=True)]
        by_key = {key: self._kept[key] for key in keys if key in self._kept}
        new = {key: index for index, key in enumerate(keys) if key not in by_key}
        if new:
            vectors = vectors_of_images(
                [as_rgb(images[index]) for index in new.values()],
                self.extractor,
                [prompts[index] or None for index in new.values()],
            )
            for row, key in enumerate(new):
                by_key[key] = [np.asarray(vector[row]) for vector in vectors]
        unused = {key: rows for key, rows in self._kept.items() if key not in by_key}
        self._kept = dict([*unused.items(), *by_key.items()][-KEPT:])
        return [by_key[key] for key in keys]


def in_memory(images: Pictures) -> TypeGuard[Sequence[Image.Image]]:
    """Whether they are images; False where they are files.

    Raises:
        AgiqaError: both are among them, or nothing is.
    """
    if not images:
        raise AgiqaError("No images to explain.")
    loaded = sum(isinstance(image, Image.Image) for image in images)
    if 0 < loaded < len(images):
        raise AgiqaError("Give files or images in memory to explain, not both in one call.")
    return loaded > 0


def pictures(images: Pictures) -> list[Image.Image]:
    """The images as RGB.

    Raises:
        ImageError: a file cannot be decoded.
    """
    return [
        as_rgb(image) if isinstance(image, Image.Image) else decode(Path(image)) for image in images
    ]


def ids_of(images: Pictures) -> list[str | None]:
    """The image id of each file; None for images in memory."""
    return [None if isinstance(image, Image.Image) else image_id(Path(image)) for image in images]


def _digest(image: Image.Image) -> str:
    about = f"{image.mode} {image.size} ".encode()
    return hashlib.sha256(about + image.tobytes()).hexdigest()
