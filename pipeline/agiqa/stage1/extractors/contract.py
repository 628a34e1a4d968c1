"""What stage 1 asks of an extractor, whatever model stands behind it.

A failure ends one image's work or all: a `RefusedError` is about one image or its prompt; a
`FailedError` came out of the model's forward pass, and only whoever tries the batch's images one by
one learns whether it is about one of them. Any other error ends the work.
"""

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL import Image

from agiqa.core.errors import AgiqaError, one_line, some
from agiqa.core.memory import ran_out
from agiqa.core.params import Precision, Semantic, Visual
from agiqa.core.processes import full_float32

log = logging.getLogger(__name__)

Settings = TypeVar("Settings", Semantic, Visual)
# What image processors raise on shapes and values that they do not take; others are mistakes.
OF_DATA = (ArithmeticError, IndexError, MemoryError, OSError, RuntimeError, ValueError)


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

    name: str  # of the store, as in `cache/<dataset>/<name>.zarr`
    vectors: tuple[Vector, ...]  # P of them, in order
    batch_size: int  # B, of a full batch; one that is not full is filled up by repetition
    precision: Precision  # of the stored vectors; part of the fingerprint

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


class RefusedError(AgiqaError):
    """One image, or its prompt, cannot be used with this model; the message says why."""


class FailedError(AgiqaError):
    """The model failed on a batch of images, by one of them or by all."""


@contextmanager
def running(model: str) -> Iterator[None]:
    """Run a model without gradients and TF32; name it where its own code fails.

    Memory that ran out stays what it is.

    Raises:
        FailedError: in place of whatever a forward pass raises.
        AgiqaError: the device itself failed, and can be used no more.
    """
    import torch

    try:
        with torch.inference_mode(), full_float32():
            yield
    except AgiqaError:
        raise
    except Exception as error:  # of any library, on any input
        if ran_out(error):
            raise
        log.debug("'%s' failed", model, exc_info=True)
        line = f"Model '{model}' failed ({type(error).__name__}: {one_line(error)})"
        if isinstance(error, getattr(torch, "AcceleratorError", ())):
            raise AgiqaError(
                f"{line}: the device cannot be used any more; finished vectors are kept. Start "
                "again, on the CPU (CUDA_VISIBLE_DEVICES=) to see the true cause."
            ) from error
        raise FailedError(line) from error


def refused(processor: Any, image: Image.Image, error: Exception) -> AgiqaError:
    """Make the error for a processor that raised on an image: it refuses it, or cannot work."""
    kind, reason = type(processor).__name__, one_line(error) or type(error).__name__
    if isinstance(error, OF_DATA):
        size = f"{image.width} x {image.height}"
        return RefusedError(f"{kind} refuses an image of {size} pixels: {reason}")
    return AgiqaError(
        f"{kind} cannot be used ({type(error).__name__}: {reason}): copy the model's processor "
        "files again, or use another model."
    )


def require_known(ids: Iterable[int], rows: int, model: str) -> None:
    """Refuse tokens that the model's embedding has no row for.

    Raises:
        RefusedError: names the model and the ids.
    """
    unknown = sorted({token for token in ids if not 0 <= token < rows})
    if unknown:
        raise RefusedError(
            f"Model '{model}' has an embedding of {rows} tokens, but its tokenizer gives the ids "
            f"{some([str(token) for token in unknown])}: take the tokenizer of the same model"
        )
