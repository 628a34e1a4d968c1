"""Reading image files: one strict decoder, the content hash, and a check of many files at once.

Where it stands in the flow: `prepare` checks every file here before anything is written, and the
extractors and `score` decode through the same function, so what was checked is what is used. The
resize of the `paper` presets stands here too. What becomes of unusual pixels is said in
image_formats/loading.py.

* A file is read once, whole; what is hashed is what is decoded.
* Animations and files of several pages give their first frame.
* An EXIF orientation is applied, so images stand upright; a damaged EXIF block is ignored.
* Absent, a broken link, a folder or a pipe, unreadable, zero bytes, truncated, damaged, not an
  image, or above the limits: refused with a reason in plain words, before a pixel is unpacked where
  the header says so.
"""

import hashlib
import io
import math
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from agiqa.core.errors import AgiqaError, printable
from agiqa.core.regular_files import read_regular
from agiqa.data.image_formats import FORMATS, MAX_PIXELS, FormatError, loading, read_picture

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm",
)  # fmt: skip

MAX_BYTES = 256 << 20  # of a file


class ImageError(AgiqaError):
    """One image file that cannot be used; `path` and `reason` stand apart as well."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{printable(path)}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[Path, str]]:
        """Make the error again as it was, for the process that asked."""
        return type(self), (self.path, self.reason)


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be used, and why, in plain words."""

    path: str
    reason: str


class BadImagesError(AgiqaError):
    """Images that cannot be used, `bad`; what could be done for all others has been done."""

    def __init__(self, message: str, bad: Sequence[BadImage]) -> None:
        super().__init__(message)
        self.bad = tuple(bad)


def decode(source: Path | bytes, expected: str | None = None) -> Image.Image:
    """Decode a file, or its bytes: its (first) picture as 8-bit RGB, upright, fully loaded.

    Time and memory are bounded, whatever the file: see "What images may be" in docs/scoring.md.

    Raises:
        ImageError: it cannot be used, or has another `image_id` than expected; `reason` says why.
    """
    path = source if isinstance(source, Path) else Path("the image")
    data = _read(path) if isinstance(source, Path) else source
    if expected is not None and hashlib.sha256(data).hexdigest() != expected:
        raise ImageError(path, "has changed since prepare")
    return _decoded(path, data)


def image_size(path: Path) -> tuple[int, int]:
    """Read width and height of the upright picture from the header; no pixel is unpacked.

    Raises:
        ImageError: the file cannot be used.
    """
    try:
        picture = read_picture(_read(path))
    except FormatError as error:
        raise ImageError(path, str(error)) from None
    turned = picture.orientation >= 5  # EXIF's quarter turns
    size = (picture.width, picture.height)
    return size[::-1] if turned else size


def image_id(path: Path) -> str:
    """Hash the file's bytes: sha256 in hexadecimal, the key under which vectors are stored."""
    return hashlib.sha256(_read(path)).hexdigest()


def as_rgb(image: Image.Image) -> Image.Image:
    """Copy a caller's image as 8-bit RGB, by the rules of `decode`.

    What `Image.open` gave and nobody has touched since is decoded as its file is; of all else the
    pixels count, turned as the EXIF data say that it has kept.

    Raises:
        ImageError: its pixels have a range that is not known, its size is beyond the limits, or its
            file is damaged or closed.
    """
    path = Path("the image")
    try:
        if (data := _untouched_file(image)) is not None:
            return _decoded(path, data)
        return loading.upright(loading.on_white(image), loading.kept_orientation(image.info))
    except AssertionError:  # Pillow's, of a closed file
        raise ImageError(path, "was closed before its pixels were read") from None
    except (OSError, ValueError) as error:
        raise ImageError(path, loading.why_not(error)) from None


def _untouched_file(image: Image.Image) -> bytes | None:
    """Read the file of an opened image, if its pixels are not loaded and it is as it was opened."""
    if not isinstance(image, ImageFile.ImageFile) or image.format not in FORMATS:
        return None
    if image.fp is None or not image.tile or image.decoderconfig or image.tell():
        return None  # closed, loaded, shrunk by draft(), or at another frame
    position = image.fp.tell()
    size = image.fp.seek(0, io.SEEK_END)
    image.fp.seek(0)
    data = image.fp.read(min(size, MAX_BYTES))
    image.fp.seek(position)
    return data if size <= MAX_BYTES else None


def fit_for_square(image: Image.Image) -> Image.Image:
    """Shrink the image where the square that encloses it would break the limit of pixels.

    For processors that pad to a square first: of a long strip that takes some 10 GB.
    """
    most = math.isqrt(MAX_PIXELS)
    if max(image.size) <= most:
        return image
    small = image.copy()
    small.thumbnail((most, most), Image.Resampling.BICUBIC)
    return small


def resize_bicubic(image: np.ndarray, size: int) -> np.ndarray:
    """Resize RGB `(H, W, 3)` uint8 to a square of `size` pixels a side, its aspect lost.

    As the paper's regressor takes it: OpenCV's `INTER_CUBIC` within one grey level, bicubic with a
    = −0.75 and no antialiasing. (Pillow's own is another kernel and antialiased, up to 29 grey
    levels off.)
    """
    import torch
    from torch.nn import functional

    small = np.empty((size, size, 3), np.uint8)
    for channel in range(3):  # one by one: in float32 all three of a large image take 768 MB
        plane = torch.from_numpy(image[..., channel].astype(np.float32))[None, None]
        resized = functional.interpolate(plane, (size, size), mode="bicubic", antialias=False)
        small[..., channel] = resized[0, 0].round().clamp(0, 255).numpy()
    return small


def check_images(paths: Sequence[Path], workers: int | None = None) -> list[BadImage]:
    """List those of the files that cannot be used; arguments as of `checked_ids`."""
    return [image for image in checked_ids(paths, workers) if isinstance(image, BadImage)]


def checked_ids(paths: Sequence[Path], workers: int | None = None) -> Iterator[str | BadImage]:
    """Decode every file in full, in threads: its `image_id`, or why it cannot be used, in order.

    By default by a few more threads than there are cores.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="check-images") as pool:
        yield from pool.map(_check, paths)


def require_file(path: Path) -> None:
    """Refuse what is not a regular file with something in it: opening a pipe would wait forever."""
    try:
        status = path.stat()
    except FileNotFoundError:
        broken = path.is_symlink()
        reason = "is a link to a file that does not exist" if broken else "does not exist"
        raise ImageError(path, reason) from None
    except (OSError, ValueError) as error:
        raise ImageError(path, f"cannot be read: {getattr(error, 'strerror', error)}") from error
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(path, "is a folder, not an image file")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(path, "is not a regular file")
    if status.st_size == 0:
        raise ImageError(path, "is empty (0 bytes)")
    if status.st_size > MAX_BYTES:
        raise ImageError(
            path,
            f"has {status.st_size / 2**20:,.0f} MiB, more than the limit of {MAX_BYTES >> 20}: "
            "make it smaller or remove it",
        )


def _read(path: Path) -> bytes:
    require_file(path)
    try:
        return read_regular(path, MAX_BYTES)
    except PermissionError:
        raise ImageError(path, "cannot be read: permission denied") from None
    except OSError as error:
        raise ImageError(path, f"cannot be read: {error.strerror}") from error
    except ValueError as error:  # it was another file a moment ago
        raise ImageError(path, str(error)) from None


def _decoded(path: Path, data: bytes) -> Image.Image:
    try:
        picture = read_picture(data)
        return loading.unpack_isolated(data) if picture.isolated else loading.unpack(picture)
    except MemoryError:
        raise ImageError(path, "is too large for the memory there is") from None
    except Exception as error:
        raise ImageError(path, loading.why_not(error)) from error


def _check(path: Path) -> str | BadImage:
    try:
        data = _read(path)
        _decoded(path, data)
    except ImageError as error:
        return BadImage(printable(path), error.reason)
    return hashlib.sha256(data).hexdigest()
