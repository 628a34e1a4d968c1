"""What stage 1 asks of an extractor, whatever model stands behind it."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image

from agiqa.core.params import Semantic, Visual

Settings = TypeVar("Settings", Semantic, Visual)


@dataclass(frozen=True)
class Vector:
    """One vector an extractor makes of every image: a prompt's, or a layer's.

    `fingerprint` holds everything that changes its numbers and nothing else; it alone decides
    whether a cached row may be reused.
    """

    name: str
    fingerprint: Mapping[str, object]
    width: int  # D, the same for all vectors of one store
    store: str = ""  # "" or ANSWERS: which of the extractor's stores it belongs to
    asks_image_prompt: bool = False  # its text holds the prompt that the image was made from


@dataclass(frozen=True, eq=False)
class Sample:
    """One image as its model takes it, made in a worker process."""

    # By the model's argument, to be concatenated along axis 0; with an underscore first, what only
    # the tokens around the image depend on.
    arrays: Mapping[str, np.ndarray]
    key: Hashable = None  # samples with equal keys form a batch
    image_prompt: str | None = None  # what the image was made from, where a prompt asks for it
    # Tokens `(L,)` of the prompts that hold it, by the prompt's name; no other image has the same.
    texts: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    # Of a blank image of the same size, where the likelihood of the prompt is compared with that.
    blank: Mapping[str, np.ndarray] = field(default_factory=dict)


def asks_image_prompt(vectors: Iterable[Vector]) -> bool:
    """Tell whether one of them depends on the prompt that an image was made from."""
    return any(vector.asks_image_prompt for vector in vectors)


class Extractor(Protocol):
    """Turns images into vectors: P named ones of each."""

    @property
    def name(self) -> str:
        """Name the store, as in `cache/<dataset>/<name>.zarr`."""

    @property
    def vectors(self) -> tuple[Vector, ...]:
        """The P vectors, in order."""

    @property
    def batch_size(self) -> int:
        """B, images in a full batch; one that is not full is filled up by repetition."""

    @property
    def precision(self) -> str:
        """Of the stored vectors: float16 or float32; part of the fingerprint."""

    def preprocess(self, image: Image.Image, image_prompt: str | None = None) -> Sample:
        """Turn an RGB image into what `extract` takes; called in worker processes.

        Raises:
            RefusedError: this image or its prompt cannot be used; others can.
        """

    def extract(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        """Turn B samples of one key into float32 `(B, D)` for each wanted one of P vectors.

        Raises:
            FailedError: the model failed on this batch; on another it may not.
            AgiqaError: there is no use in trying another.
        """

    def recipe(self) -> "Recipe":
        """Give what another process makes the same extractor of."""


@dataclass(frozen=True)
class Recipe:
    """What a process elsewhere makes an extractor of: its class and the class's arguments."""

    kind: Callable[..., Extractor]
    arguments: tuple[object, ...]  # a recipe among them stands for its extractor

    def make(self) -> Extractor:
        """Make the extractor, with all its checks, of the files that are there.

        Raises:
            AgiqaError: the model is not there or cannot be used.
        """
        made = (part.make() if isinstance(part, Recipe) else part for part in self.arguments)
        return self.kind(*made)


def at_any_folder(settings: Settings) -> Settings:
    """Name a model's folder so that it is found from whatever folder a process runs in."""
    folder = Path(settings.model)
    return replace(settings, model=str(folder.resolve())) if folder.is_dir() else settings


def batch(samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """Join the samples' arrays along axis 0."""
    return {
        name: np.concatenate([sample.arrays[name] for sample in samples])
        for name in samples[0].arrays
        if not name.startswith("_")
    }


class VectorSubset:
    """The extractor with the vectors at `indices` alone, in that order: no more is computed."""

    def __init__(self, extractor: Extractor, indices: Sequence[int]) -> None:
        self.extractor, self.indices = extractor, tuple(indices)
        self.name, self.precision = extractor.name, extractor.precision
        self.batch_size = extractor.batch_size
        self.vectors = tuple(extractor.vectors[index] for index in indices)
        self.preprocess = extractor.preprocess

    def extract(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        """Extract as the extractor does; `wanted` counts the vectors of the subset."""
        return self.extractor.extract(samples, [self.indices[number] for number in wanted])

    def recipe(self) -> Recipe:
        """Give the extractor's recipe, and the indices."""
        return Recipe(VectorSubset, (self.extractor.recipe(), self.indices))
