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
Packed = bytes | bytearray | memoryview  # a file's content, which is no sequence of pictures
Picture = File | Image.Image | np.ndarray | torch.Tensor
CHANNELS = (1, 3, 4)  # grey, RGB, RGBA


def is_batch(given: object) -> bool:
    """Whether it is a tensor or an array of several images, which has four axes."""
    return isinstance(given, torch.Tensor | np.ndarray) and given.ndim == 4


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
            return _of_array(given, "array", "(H, W, 3) or (B, H, W, 3)")
        case "":
            raise AgiqaError("Expected a path of an image to score, found an empty one.")
        case Path() | str():
            return find_images(Path(given)) if Path(given).is_dir() else [given]
    advice = ": open them with Pillow, as io.BytesIO(data)" if isinstance(given, Packed) else ""
    raise AgiqaError(
        "Expected paths, Pillow images, arrays or tensors to score, found "
        f"{type(given).__name__}{advice}."
    )


def _of_tensor(tensor: torch.Tensor) -> list[Image.Image]:
    """Images of a tensor `(3, H, W)` or `(B, 3, H, W)`; otherwise as `_of_array`."""
    if tensor.is_meta or tensor.layout != torch.strided:
        kind = "meta" if tensor.is_meta else tensor.layout
        raise AgiqaError(f"Expected a dense tensor with values, found {kind}.")
    values = tensor.detach()
    if values.ndim > 2:
        values = values.movedim(-3, -1)
    if values.is_floating_point():
        values = values.float()  # NumPy has no bfloat16
    shape = tuple(tensor.shape)
    return _of_array(values.cpu().numpy(), "tensor", "(3, H, W) or (B, 3, H, W)", shape)


def _of_array(
    array: np.ndarray, kind: str, expected: str, shape: tuple[int, ...] = ()
) -> list[Image.Image]:
    """Images of an array `(H, W, C)` or `(B, H, W, C)`: uint8, or numbers from 0 to 1.

    Args:
        array: of 3 channels, or 1 (grey) or 4 (RGBA); grey may be `(H, W)`.
        kind: what it was, for messages.
        expected: the shapes of its kind.
        shape: its own, where it was another than the array's.

    Raises:
        AgiqaError: another shape, another type, or numbers outside [0, 1].
    """
    values = array[..., None] if array.ndim == 2 and kind == "array" else array
    is_float = np.issubdtype(values.dtype, np.floating)
    is_image = values.ndim in (3, 4) and values.shape[-1] in CHANNELS and values.size
    if not is_image or not (is_float or values.dtype == np.uint8):
        first = kind == "array" and array.ndim in (3, 4) and array.shape[-3] in CHANNELS
        raise AgiqaError(
            f"Expected images as {'an array' if kind == 'array' else 'a tensor'} {expected} of "
            "uint8, or of numbers from 0 to 1, with 3 channels, 1 or 4, found "
            f"{shape or array.shape} of {array.dtype}"
            + (": np.moveaxis(array, -3, -1) puts channels last." if first else ".")
        )
    if is_float:
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):  # NaN is neither
            raise AgiqaError(
                f"Expected numbers from 0 to 1 in {kind}s of images, found {low:g} to {high:g}: "
                "clamp them, or bring them to this range."
            )
        values = (values.astype(np.float32) * 255).round().astype(np.uint8)
    rows = values.reshape(-1, *values.shape[-3:])
    rows = rows[..., 0] if rows.shape[-1] == 1 else rows
    return [as_rgb(Image.fromarray(np.ascontiguousarray(row))) for row in rows]
