"""What a picture's file says before anything of it is unpacked, and the limits that it keeps.

Of EXIF data and XMP the orientation alone is read: Pillow's own reader unpacks every field of the
directory, and fields may overlap: 1 MB can say 60 GB.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

MAX_PIXELS = 64_000_000  # 8000 x 8000
MAX_SIDE = 32_768  # pixels
MAX_RATIO = 200  # longer side to shorter: no model takes more
MAX_PARTS = 65_536  # chunks, blocks, segments or strips of a file
ORIENTATION, SHORT = 0x0112, 3  # EXIF's tag, and the type of its value
XMP = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
Box = tuple[int, int, int, int]  # left, top, right, bottom


class FormatError(ValueError):
    """A picture that cannot be used; the text says why, and follows the file's name."""


class UnknownFormatError(FormatError):
    """Of no format that is read here."""


@dataclass(frozen=True)
class Picture:
    """One picture, its size within the limits, not unpacked yet.

    Raises:
        FormatError: it is larger or narrower than the limits.
    """

    format: str  # as Pillow names it
    width: int  # as stored, before it is turned upright
    height: int
    data: bytes  # a file with what makes the pixels, and nothing else
    orientation: int = 1  # EXIF's, 1 to 8
    peak: int = 65535  # of grey pixels with more than 8 bits
    inverted: bool = False  # of these: whether 0 is white
    deep: bool = False  # whether colours have 16 bits a sample
    split_bytes: bool = False  # 16-bit grey and alpha, stored as RGBA: high and low byte of each
    transparent: tuple[int, ...] | None = None  # the one grey or colour that is, as stored
    area: Box | None = None  # what the picture covers of its size; the rest is transparent
    isolated: bool = False  # whether only a process with limits may unpack it
    unpack: Callable[[], Image.Image] | None = None  # in place of Pillow's decoder

    def __post_init__(self) -> None:
        require_size(self.width, self.height)


def require_size(width: int, height: int) -> None:
    """Refuse an image that is larger or narrower than the limits, in pixels.

    Raises:
        FormatError: it is.
    """
    size = f"has {width} x {height} pixels"
    if width < 1 or height < 1:
        raise FormatError(f"{size}: nothing to see")
    if width * height > MAX_PIXELS:
        raise FormatError(
            f"{size}, more than the limit of {MAX_PIXELS:,}: make it smaller or remove it"
        )
    if max(width, height) > MAX_SIDE:
        raise FormatError(
            f"{size}, a side longer than the limit of {MAX_SIDE:,}: cut it or remove it"
        )
    if max(width, height) > MAX_RATIO * min(width, height):
        raise FormatError(
            f"{size}, one side more than {MAX_RATIO} times the other: cut it or remove it"
        )


def require_parts(count: int) -> None:
    """Refuse files of so many parts that reading their list would take long.

    Raises:
        FormatError: more than `MAX_PARTS`.
    """
    if count > MAX_PARTS:
        raise FormatError(f"is made of more than {MAX_PARTS:,} parts: save it again")


def orientation(exif: bytes, xmp: bytes = b"") -> int:
    """Read an orientation, 1 (as it is stored) to 8; 1 where it is damaged or not said."""
    try:
        value = _in_exif(exif)
    except struct.error:
        value = None
    if value is None and (match := XMP.search(xmp)):
        value = int(match[1])
    return value if value is not None and 1 <= value <= 8 else 1


def _in_exif(exif: bytes) -> int | None:
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return None
    (start,) = struct.unpack_from(order + "I", exif, 4)
    (count,) = struct.unpack_from(order + "H", exif, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, entry)
        if tag == ORIENTATION:
            return int(value) if kind == SHORT else None
    return None
