"""Reading image files: one strict decoder, the content hash, and a check of many files at once.

Where it stands in the flow: `prepare` checks every file here before anything is written, and the
extractors and `score` decode through the same function, so what was checked is what is used. The
resize of the `paper` presets stands here too.

What becomes of unusual files:

* CMYK, YCbCr, grey, 1-bit and palette images are converted to RGB. Colour profiles are ignored.
* 16-bit grey (PNG, TIFF, PGM) is scaled from 0…65535 to 0…255. 16-bit RGB keeps its high bytes.
* Alpha, and a palette's or PNG's transparent colour, is composited on white.
* Animations and files of several pages give their first frame.
* An EXIF orientation is applied, so images stand upright; a damaged EXIF block is ignored.
* 32-bit integer or float pixels (TIFF) and LAB are refused: nobody says which range to show.
* Absent, a broken link, a folder or a pipe, unreadable, zero bytes, truncated, damaged, not an
  image, or above `MAX_PIXELS`: refused with a reason in plain words. The size is read from the
  header, so a decompression bomb is refused before a pixel of it is unpacked.
"""

import hashlib
import logging
import stat
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from agiqa.errors import AgiqaError, printable

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm", ".jp2",
)  # fmt: skip

# Only formats a generator may write: Pillow also knows some that start other programs (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")

# 8000 x 8000. Unpacked as RGBA that is 256 MB an image; Pillow itself only warns, and later.
MAX_PIXELS = 64_000_000

_DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N")
_HEADER_LOCK = threading.Lock()


class ImageError(AgiqaError):
    """One image file that cannot be used; `path` and `reason` stand apart as well."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{printable(path)}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[Path, str]]:
        """As it was made, for the process that asked."""
        return type(self), (self.path, self.reason)


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be used, and why, in plain words."""

    path: str
    reason: str


def decode(path: Path) -> Image.Image:
    """The file's (first) picture as 8-bit RGB, upright, fully loaded.

    Raises:
        ImageError: the file cannot be used; its `reason` says why.
    """
    require_file(path)
    try:
        with path.open("rb") as file, _open_header(file) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(
                    path,
                    f"has {width} x {height} pixels, more than the limit of {MAX_PIXELS:,}: "
                    "make it smaller or remove it",
                )
            image.load()
            return _as_rgb(path, _upright(image))
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(
            path, f"is not an image, or of a format not read here ({', '.join(FORMATS)})"
        ) from None
    except PermissionError:
        raise ImageError(path, "cannot be read: permission denied") from None
    except MemoryError:
        raise ImageError(path, "is too large for the memory there is") from None
    # Decoders raise what they like on damage: OSError, SyntaxError, ValueError, struct.error, EOF…
    except Exception as error:
        kind = "truncated" if "truncated" in str(error).lower() else "damaged"
        raise ImageError(path, f"is {kind} ({error})") from error


def image_id(path: Path) -> str:
    """The sha256 of the file's bytes, in hexadecimal: the key under which vectors are stored."""
    require_file(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(path, f"cannot be read: {error.strerror}") from error


def resize_bicubic(image: np.ndarray, size: int) -> np.ndarray:
    """The whole image as a square, its aspect not kept, as the paper's regressor takes it.

    OpenCV's `INTER_CUBIC` within one grey level: bicubic with a = −0.75 and no antialiasing.
    (Pillow's own is another kernel and antialiased, up to 29 grey levels off.)

    Args:
        image: RGB `(H, W, 3)` uint8.
        size: S, pixels a side.

    Returns:
        `(S, S, 3)` uint8.
    """
    import torch
    from torch.nn import functional

    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    small = functional.interpolate(pixels, (size, size), mode="bicubic", antialias=False)
    rounded = small[0].permute(1, 2, 0).round().clamp(0, 255)
    return rounded.to(torch.uint8).contiguous().numpy()


def check_images(
    paths: Sequence[Path],
    workers: int | None = None,
    on_progress: Callable[[int, int], object] | None = None,
) -> list[BadImage]:
    """Decode every file in full, in threads, and list those that cannot be used, in order.

    Args:
        paths: the files.
        workers: threads; None takes a few more than there are cores.
        on_progress: called as (done, total) after each file.
    """
    bad: list[BadImage] = []
    with ThreadPoolExecutor(workers, thread_name_prefix="check-images") as pool:
        for done, found in enumerate(pool.map(_check, paths), start=1):
            if found is not None:
                bad.append(found)
            if on_progress is not None:
                on_progress(done, len(paths))
    return bad


def require_file(path: Path) -> None:
    """Refuse what is not a regular file with something in it: opening a pipe would wait forever."""
    try:
        found = path.stat()
    except FileNotFoundError:
        broken = path.is_symlink()
        reason = "is a link to a file that does not exist" if broken else "does not exist"
        raise ImageError(path, reason) from None
    except (OSError, ValueError) as error:
        raise ImageError(path, f"cannot be read: {getattr(error, 'strerror', error)}") from error
    if stat.S_ISDIR(found.st_mode):
        raise ImageError(path, "is a folder, not an image file")
    if not stat.S_ISREG(found.st_mode):
        raise ImageError(path, "is not a regular file")
    if found.st_size == 0:
        raise ImageError(path, "is empty (0 bytes)")


def _open_header(file: BinaryIO) -> Image.Image:
    """Pillow's lazy open, without its own bomb check, whose warning would reach the user's screen.

    The switch is Pillow's global, so it is turned under a lock and turned back at once. (Catching
    the warning instead would swap the warning filters of every other thread.)
    """
    with _HEADER_LOCK:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            return Image.open(file, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # a damaged EXIF block says nothing about the pixels
        logger.debug("ignored a damaged EXIF block: %s", error)
        return image.copy()


def _as_rgb(path: Path, image: Image.Image) -> Image.Image:
    if image.mode in _DEEP_GREY or (image.mode == "I" and image.format in (None, "PPM")):
        deep = np.asarray(image).astype(np.float32)
        grey = np.clip(np.rint(deep / 257.0), 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("I", "F", "LAB"):
        raise ImageError(
            path,
            f"has pixels of mode {image.mode}, whose range is not known: save it as 8-bit RGB",
        )
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, seen).convert("RGB")
    return image.convert("RGB")


def _check(path: Path) -> BadImage | None:
    try:
        decode(path)
    except ImageError as error:
        return BadImage(printable(path), error.reason)
    return None
