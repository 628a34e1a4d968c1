"""What people give to score: files, folders of them, and images in memory of three kinds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.folder import find_images
from agiqa.data.images import as_rgb

File = Path | str  # or a folder of them
Picture = File | Image.Image | np.ndarray | torch.Tensor


def is_batch(given: object) -> bool:
    """Whether it is a tensor of several images `(B, 3, H, W)`."""
    return isinstance(given, torch.Tensor) and given.ndim != 3


def as_pictures(given: object) -> Sequence[Path | str | Image.Image]:
    """The file, the files of a folder, or the images in memory as RGB.

    Raises:
        AgiqaError: it is something else, or an array or tensor of another kind.
    """
    match given:
        case Image.Image():
            return [as_rgb(given)]
        case torch.Tensor():
            return _of_tensor(given)
        case np.ndarray():
            if given.dtype != np.uint8 or given.ndim != 3 or given.shape[2] != 3 or not given.size:
                raise AgiqaError(
                    "Expected an image as an array (H, W, 3) of uint8, found "
                    f"{given.shape} of {given.dtype}."
                )
            return [as_rgb(Image.fromarray(given))]
        case "":
            raise AgiqaError("Expected a path of an image to score, found an empty one.")
        case Path() | str():
            return find_images(Path(given)) if Path(given).is_dir() else [given]
    raise AgiqaError(
        f"Expected paths, Pillow images, arrays or tensors to score, found {type(given).__name__}."
    )


def _of_tensor(tensor: torch.Tensor) -> list[Image.Image]:
    """Images of a tensor `(3, H, W)` or `(B, 3, H, W)`: uint8, or numbers from 0 to 1.

    Raises:
        AgiqaError: another shape, another type, or numbers outside [0, 1].
    """
    is_image = tensor.ndim in (3, 4) and tensor.shape[-3] == 3 and tensor.numel()
    if not is_image or not (tensor.is_floating_point() or tensor.dtype == torch.uint8):
        raise AgiqaError(
            "Expected a tensor (B, 3, H, W) or (3, H, W) of uint8, or of numbers from 0 to 1, "
            f"found {tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}."
        )
    tensor = tensor.detach()
    if tensor.is_floating_point():
        low, high = (float(end) for end in tensor.aminmax())
        if not (low >= 0 and high <= 1):  # NaN is neither
            raise AgiqaError(
                f"Expected numbers from 0 to 1 in a tensor of images, found {low:g} to {high:g}: "
                "clamp them, or bring them to this range."
            )
        tensor = (tensor.float() * 255).round().to(torch.uint8)
    rows = tensor.reshape(-1, *tensor.shape[-3:]).permute(0, 2, 3, 1).cpu().numpy()
    return [as_rgb(Image.fromarray(np.ascontiguousarray(row))) for row in rows]
