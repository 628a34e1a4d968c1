"""PBM, PGM and PPM. Bytes of any maxval are scaled here; Pillow does that pixel by pixel in Python.

Numbers in plain text are left to Pillow, in a process of their own.
"""

import re

import numpy as np
from PIL import Image

from agiqa.data.image_formats.picture import FormatError, Picture

BLANK = rb"(?:[ \t\r\n\f\v]|#[^\r\n]*[\r\n])+"
SIZE = re.compile(rb"P[1-6]" + BLANK + rb"(\d{1,9})" + BLANK + rb"(\d{1,9})")
MAXVAL = re.compile(BLANK + rb"(\d{1,5})[ \t\r\n\f\v]")
LONGEST_HEADER = 1 << 16  # bytes, comments included
CHANNELS = {b"P5": 1, b"P6": 3}
ROWS = 1 << 22  # samples that are scaled at a time


def read_pnm(data: bytes) -> Picture:
    """Read the picture of a PNM file.

    Raises:
        FormatError: the header is damaged, or has floating-point pixels.
    """
    kind = data[:2]
    if kind in (b"Pf", b"PF"):
        raise FormatError(
            "has floating-point pixels, whose range is not known: save it as 8-bit RGB"
        )
    size = SIZE.match(data[:LONGEST_HEADER])
    if size is None:
        raise FormatError("is damaged (a PNM without a size)")
    width, height = int(size[1]), int(size[2])
    if kind not in CHANNELS:
        return Picture("PPM", width, height, data, isolated=kind != b"P4")
    maxval = MAXVAL.match(data[:LONGEST_HEADER], size.end())
    if maxval is None or not 1 <= int(maxval[1]) <= 65535:
        raise FormatError("is damaged (a PNM without a maxval from 1 to 65535)")
    most, start = int(maxval[1]), maxval.end()

    def unpack() -> Image.Image:
        return _scaled(data, start, (height, width, CHANNELS[kind]), most)

    return Picture("PPM", width, height, data, unpack=unpack)


def _scaled(data: bytes, start: int, shape: tuple[int, int, int], most: int) -> Image.Image:
    """Scale samples `(H, W, C)` from 0…`most` to 0…255, to the nearest."""
    stored = np.dtype(np.uint8 if most < 256 else ">u2")
    count = int(np.prod(shape))
    if len(data) - start < count * stored.itemsize:
        raise FormatError("is truncated (a PNM that ends within its pixels)")
    samples = np.frombuffer(data, stored, count, start)
    if most != 255:
        scaled = np.empty(count, np.uint8)
        for first in range(0, count, ROWS):
            values = np.minimum(samples[first : first + ROWS].astype(np.uint32), most)
            scaled[first : first + ROWS] = (values * 510 + most) // (2 * most)
        samples = scaled
    pixels = samples.reshape(shape)
    return Image.fromarray(pixels if shape[2] == 3 else pixels[..., 0])
