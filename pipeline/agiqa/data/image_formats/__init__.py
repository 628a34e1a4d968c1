"""Formats of image files: what of a file makes its picture, and the picture from it.

A stranger's file is taken apart here first. Its size, scans, frames and tags are counted; only the
bytes that make the first picture are put together again for Pillow, whose readers of metadata see
none. What a header cannot bound is unpacked in a process with limits (loading.py).
"""

import struct
from collections.abc import Callable

from agiqa.data.image_formats.bmp_pnm_tiff import read_bmp, read_pnm, read_tiff
from agiqa.data.image_formats.jpeg import read_jpeg
from agiqa.data.image_formats.picture import MAX_PIXELS, FormatError, Picture, UnknownFormatError
from agiqa.data.image_formats.png_gif_webp import SIGNATURE, read_gif, read_png, read_webp

# Only formats a generator may write: Pillow also knows some that start other programs (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

_READERS: dict[bytes, Callable[[bytes], Picture]] = {
    b"\xff\xd8\xff": read_jpeg,
    SIGNATURE: read_png,
    b"RIFF": read_webp,
    b"GIF87a": read_gif,
    b"GIF89a": read_gif,
    b"BM": read_bmp,
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), read_tiff),
    **{b"P" + kind: read_pnm for kind in (b"1", b"2", b"3", b"4", b"5", b"6", b"f", b"F")},
}


def read_picture(data: bytes) -> Picture:
    """Read what the bytes of an image file say of its (first) picture.

    Raises:
        FormatError: it cannot be used.
    """
    reader = next((read for magic, read in _READERS.items() if data.startswith(magic)), None)
    if reader is None or (reader is read_webp and data[8:12] != b"WEBP"):
        raise UnknownFormatError(
            f"is not an image, or of a format not read here ({', '.join(FORMATS)})"
        )
    try:
        return reader(data)
    except (struct.error, IndexError):
        raise FormatError("is truncated (it ends within its header)") from None


__all__ = ["FORMATS", "MAX_PIXELS", "FormatError", "read_picture"]
