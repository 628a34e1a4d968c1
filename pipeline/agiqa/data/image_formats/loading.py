"""From a picture's bytes to 8-bit RGB, band by band, so that no step holds a third copy of it.

What a header cannot bound (compressed TIFF, run lengths, numbers in plain text) is
unpacked in a process of its own, which the kernel ends at its limits of time and memory.

* Grey of more than 8 bits, and 16-bit colours, are scaled to the nearest of 256 levels.
* Alpha, a palette's or a PNG's transparent colour, and what a frame leaves of its screen become
  white.
* CMYK, YCbCr, palettes, grey and 1 bit become RGB by Pillow's rules. Colour profiles and gamma are
  ignored.
* 32-bit integers, floats and LAB are refused: nobody says which range to show.
"""

import io
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from agiqa.data.image_formats import read_picture
from agiqa.data.image_formats.picture import Box, FormatError, Picture, orientation, require_size
from agiqa.data.image_formats.png_gif_webp import PROFILE, exif_of_text

BAND = 1 << 20  # pixels at a time
DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N")
UNKNOWN_RANGE = ("I", "F", "LAB")
WHITE = (255, 255, 255)
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Limits of the process that unpacks, and what it answers.
SECONDS = 20  # of processor time
WAIT_SECONDS = 200.0  # by the clock, on a machine that does much else
MEGABYTES = 2048  # that it may allocate
DONE, REFUSED = b"\1", b"\0"
ROOT = Path(__file__).parents[3]  # where the package lies
CHILD = (
    "import sys; sys.path.insert(0, sys.argv[1]); from agiqa.data.image_formats.loading import main"
)
_HEADER_LOCK = threading.Lock()


def unpack(picture: Picture) -> Image.Image:
    """Unpack the picture as 8-bit RGB, upright.

    Raises:
        FormatError: its pixels cannot be shown.
        Exception: what Pillow raises on damage.
    """
    rgb = picture.unpack().convert("RGB") if picture.unpack is not None else _by_pillow(picture)
    return upright(rgb, picture.orientation)


def unpack_isolated(data: bytes) -> Image.Image:
    """Unpack a file's picture as `unpack` does, in a process with limits.

    The file goes in on its standard input; out comes the size and RGB pixels, or a line that says
    why not.

    Raises:
        FormatError: it cannot be used, or not within the limits.
    """
    too_much = FormatError(
        f"takes more than {SECONDS} s or {MEGABYTES} MB to decode: make it smaller, or save it as "
        "PNG"
    )
    quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", f"{CHILD}; main({SECONDS}, {MEGABYTES})", str(ROOT)],
            input=data,
            capture_output=True,
            timeout=WAIT_SECONDS,
            check=False,
            env={**os.environ, **quiet},
        )
    except subprocess.TimeoutExpired:
        raise too_much from None
    except OSError as error:
        raise FormatError(f"cannot be decoded now: no process for it ({error.strerror})") from error
    if done.stdout.startswith(DONE):
        size = struct.unpack_from("<II", done.stdout, 1)
        return Image.frombytes("RGB", size, memoryview(done.stdout)[9:])
    if done.stdout.startswith(REFUSED):
        raise FormatError(done.stdout[1:].decode())
    raise too_much


def main(seconds: int, megabytes: int) -> None:
    """Run the other process: standard input to standard output."""
    _limit(seconds, megabytes)
    try:
        rgb = unpack(read_picture(sys.stdin.buffer.read()))
        sys.stdout.buffer.write(DONE + struct.pack("<II", *rgb.size))
        sys.stdout.buffer.write(rgb.tobytes())
    except Exception as error:  # whatever decoders raise on damage
        if isinstance(error, MemoryError) or "out of memory" in str(error):
            return  # as if the kernel had ended it
        sys.stdout.buffer.write(REFUSED + why_not(error).encode())


def _limit(seconds: int, megabytes: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows, where the clock alone holds
        return
    for kind, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_DATA, megabytes << 20),
        (resource.RLIMIT_CORE, 0),
    ):
        _, allowed = resource.getrlimit(kind)  # the process that asks may have limits of its own
        if allowed != resource.RLIM_INFINITY:
            most = min(most, allowed)
        resource.setrlimit(kind, (most, most))


def upright(image: Image.Image, turned: int) -> Image.Image:
    """Turn an image as its EXIF orientation, 1 to 8, says."""
    return image.transpose(UPRIGHT[turned]) if turned > 1 else image


def kept_orientation(info: Mapping[Any, Any]) -> int:
    """Read the orientation that an image in memory has kept of its file, 1 to 8; 1 without any."""
    exif, xmp = info.get("exif"), info.get("xmp") or info.get("XML:com.adobe.xmp")
    if not exif and isinstance(text := info.get(PROFILE), str):
        exif = exif_of_text(text.encode(errors="replace"))
    xmp = xmp.encode(errors="replace") if isinstance(xmp, str) else xmp
    return orientation(*(part if isinstance(part, bytes) else b"" for part in (exif, xmp)))


def on_white(image: Image.Image) -> Image.Image:
    """Copy an image in memory as 8-bit RGB; what is transparent becomes white.

    Raises:
        FormatError: its pixels have a range that is not known, or its size is beyond the limits.
    """
    require_size(*image.size)
    if image.mode in UNKNOWN_RANGE:
        raise FormatError(
            f"has pixels of mode {image.mode}, whose range is not known: save it as 8-bit RGB"
        )
    if image.mode == "RGB" and not image.has_transparency_data:
        return image.copy()
    return _in_bands(image.size, lambda box: _band_on_white(image.crop(box)))


def why_not(error: Exception) -> str:
    """Say in one line what a failure to unpack means."""
    if isinstance(error, FormatError):
        return str(error)
    reason = " ".join(str(error).split())  # decoders raise what they like
    return f"is {'truncated' if 'truncated' in reason.lower() else 'damaged'} ({reason})"


def _by_pillow(picture: Picture) -> Image.Image:
    with _opened(picture) as image:
        if picture.deep:
            return _deep_colours(picture, image)
        image.load()
        if image.mode in DEEP_GREY or picture.split_bytes or picture.transparent is not None:
            return _in_bands(image.size, lambda box: _by_values(picture, image.crop(box)))
        rgb = on_white(image)
    if picture.area is not None and picture.area != (0, 0, *rgb.size):
        shown = Image.new("RGB", rgb.size, WHITE)
        shown.paste(rgb.crop(picture.area), picture.area[:2])
        return shown
    return rgb


def _opened(picture: Picture) -> ImageFile.ImageFile:
    """Open lazily by Pillow, without its own bomb check, whose warning would reach the user.

    The switch is Pillow's global, so it is turned under a lock and turned back at once. (Catching
    the warning instead would swap the warning filters of every other thread.)
    """
    with _HEADER_LOCK:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            image = Image.open(io.BytesIO(picture.data), formats=(picture.format,))
        except UnidentifiedImageError:
            raise FormatError(
                f"is damaged, or a {picture.format} of a kind that is not read"
            ) from None
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    if image.size != (picture.width, picture.height):
        raise FormatError("is damaged (its header says two sizes)")
    assert isinstance(image, ImageFile.ImageFile)
    return image


def _in_bands(size: tuple[int, int], convert: Callable[[Box], Image.Image]) -> Image.Image:
    """Put the picture together of its bands, each of them converted."""
    shown = Image.new("RGB", size, WHITE)
    rows = max(1, BAND // size[0])
    for top in range(0, size[1], rows):
        box = (0, top, size[0], min(size[1], top + rows))
        shown.paste(convert(box), box[:2])
    return shown


def _band_on_white(band: Image.Image) -> Image.Image:
    if band.mode in DEEP_GREY:
        stored = np.asarray(band)
        levels = _nearest(stored, 65535)
        if isinstance(hole := band.info.get("transparency"), int):
            levels[stored == hole] = 255
        return _grey(levels)
    if band.has_transparency_data:
        picture = band.convert("LA").convert("RGBA") if band.mode == "La" else band.convert("RGBA")
        band = Image.alpha_composite(Image.new("RGBA", picture.size, (*WHITE, 255)), picture)
    return band.convert("RGB")


def _by_values(picture: Picture, band: Image.Image) -> Image.Image:
    """Convert pixels whose stored values say more than Pillow's conversions use."""
    stored = np.asarray(band.convert("L") if band.mode == "1" else band)
    if picture.split_bytes:
        pairs = stored.astype(np.uint32)
        grey, alpha = (pairs[..., byte] * 256 + pairs[..., byte + 1] for byte in (0, 2))
        return _grey(_nearest(_over_white(grey, alpha), 65535))
    if band.mode in DEEP_GREY:
        deep = stored.astype(np.uint32)
        levels = _nearest(picture.peak - deep if picture.inverted else deep, picture.peak)
        if picture.transparent is not None:
            levels[stored == picture.transparent[0]] = 255
        return _grey(levels)
    hole = stored == np.array(picture.transparent, dtype=stored.dtype)
    pixels = np.array(band.convert("RGB"))
    pixels[hole if stored.ndim == 2 else hole.all(axis=-1)] = 255
    return Image.fromarray(pixels)


def _deep_colours(picture: Picture, high: ImageFile.ImageFile) -> Image.Image:
    """Convert 16-bit colours: Pillow unpacks the high bytes, a second pass the low ones."""
    with _opened(picture) as low:
        low.tile = [tile._replace(args=_other_bytes(tile.args)) for tile in low.tile]
        high.load()
        low.load()
        return _in_bands(high.size, lambda box: _deep_band(picture, high.crop(box), low.crop(box)))


def _deep_band(picture: Picture, high: Image.Image, low: Image.Image) -> Image.Image:
    high_bytes, low_bytes = (np.asarray(band).astype(np.uint32) for band in (high, low))
    values = high_bytes * 256 + low_bytes
    if high.mode == "RGBA":
        values = _over_white(values[..., :3], values[..., 3:])
    levels = _nearest(values, 65535)
    if picture.transparent is not None:
        levels[(values == np.array(picture.transparent)).all(axis=-1)] = 255
    return Image.fromarray(levels, mode="CMYK" if high.mode == "CMYK" else "RGB").convert("RGB")


def _other_bytes(args: Any) -> Any:
    """Change a tile decoder's arguments to take the low bytes for the high ones."""
    if not isinstance(args, str):
        return (_other_bytes(args[0]), *args[1:])
    swapped = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    if not args[:-1].endswith(";16"):
        raise FormatError(f"has 16-bit pixels of a kind that is not read ({args})")
    return args[:-1] + swapped[args[-1]]


def _over_white(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Put 16-bit values on white, to the nearest; uint32, which 65535 * 65535 + 32767 fits."""
    mixed: np.ndarray = values * alpha + 65535 * (65535 - alpha) + 32767
    return mixed // np.uint32(65535)


def _nearest(values: np.ndarray, peak: int) -> np.ndarray:
    """Scale from 0…`peak` to 0…255, uint8."""
    wide: np.ndarray = np.minimum(values.astype(np.uint32), peak) * 510 + peak
    return (wide // (2 * peak)).astype(np.uint8)


def _grey(levels: np.ndarray) -> Image.Image:
    return Image.fromarray(levels).convert("RGB")
