"""Failures that belong to one image, and those of a model: what ends one image's work, or all.

A `RefusedError` is about one image or its prompt; a `FailedError` came out of the model's forward
pass, and only whoever tries the batch's images one by one learns whether it is about one of them.
Any other error ends the work.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

from agiqa.core.errors import AgiqaError, one_line, some
from agiqa.core.memory import ran_out

log = logging.getLogger(__name__)

# What image processors raise on shapes and values that they do not take; others are mistakes.
OF_DATA = (ArithmeticError, IndexError, MemoryError, OSError, RuntimeError, ValueError)


class RefusedError(AgiqaError):
    """One image, or its prompt, cannot be used with this model; the message says why."""


class FailedError(AgiqaError):
    """The model failed on a batch of images, by one of them or by all."""


@contextmanager
def naming(model: str) -> Iterator[None]:
    """Name the model where its own code fails; memory that ran out stays what it is.

    Raises:
        FailedError: in place of whatever a forward pass raises.
        AgiqaError: the device itself failed, and can be used no more.
    """
    import torch

    try:
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
