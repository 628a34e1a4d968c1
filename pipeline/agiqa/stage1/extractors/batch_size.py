"""How many images a device takes at a time: asked for, or found out once and remembered.

What did not fit is remembered by model, type and device (model_memory.py), so that the next run
does not try it again. It is counted in numbers of the images' arrays, for images differ in their
tokens: a large one says nothing of how many small ones fit.
"""

import math

from agiqa.stage1.extractors.model_memory import Cause, recall, remember

AUTO = {"cpu": 16, "cuda": 64}  # where semantic.batch_size is 0


def device_name() -> str:
    """Name this process's device, such as `cpu` or `NVIDIA H200`."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def batch_size(asked: int) -> int:
    """Choose the images in a batch: `asked`, or by the kind of device where that is 0."""
    if asked:
        return asked
    import torch

    return AUTO["cuda" if torch.cuda.is_available() else "cpu"]


def fitting_size(size: int, weight: int, cause: Cause) -> int:
    """Halve `size` images of `weight` numbers as long as that is known not to fit.

    `cause`: model, type and device.
    """
    limit = _too_many(cause)
    while size > 1 and size * weight >= limit:
        size //= 2
    return size


def note_too_many(size: int, weight: int, cause: Cause) -> None:
    """Remember that `size` images of `weight` numbers do not fit."""
    remember(cause, min(size * weight, _too_many(cause)))


def _too_many(cause: Cause) -> float:
    known = recall(cause)
    return max(1, known) if isinstance(known, int) else math.inf
