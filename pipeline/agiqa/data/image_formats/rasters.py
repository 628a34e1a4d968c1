"""BMP, and PBM, PGM and PPM: rows of palette indices and samples of any maxval become pixels here.

Pillow takes some palettes for other depths, and scales samples pixel by pixel in Python; the rest
is Pillow's. Numbers in plain text are left to it, in a process of their own.
"""

import re
import struct
from functools import partial

import numpy as np
from PIL import Image

from agiqa.data.image_formats.picture import FormatError, Picture

RAW, RLE = 0, (1, 2)  # compressions of a BMP
# Parts of a PNM header.
BLANK = rb"(?:[ \t\r\n\f\v]|#[^\r\n]*[\r\n])+"
SIZE = re.compile(rb"P[1-6]" + BLANK + rb"(\d{1,9})" + BLANK + rb"(\d{1,9})")
MAXVAL = re.compile(BLANK + rb"(\d{1,5})[ \t\r\n\f\v]")
LONGEST_HEADER = 1 << 16  # bytes, comments included
CHANNELS = {b"P5": 1, b"P6": 3}
ROWS = 1 << 22  # samples that are scaled at a time


def read_bmp(data: bytes) -> Picture:
    """Read the picture of a BMP file.

    Raises:
        FormatError: the header is damaged.
    """
    pixels, header = struct.unpack_from("<II", data, 10)
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression, colours, entry = RAW, 0, 3
    elif header in (40, 52, 56, 64, 108, 124):
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        (colours,), entry = struct.unpack_from("<I", data, 46), 4
    else:
        raise FormatError("is damaged (a BMP of unknown layout)")
    palette = data[14 + header :][: entry * (colours or 1 << bits)] if bits <= 8 else b""
    unpack = None
    if bits in (1, 4, 8) and compression == RAW:
        unpack = partial(_look_up, data, pixels, palette, (width, height), bits, entry)
    isolated = compression in RLE
    return Picture("BMP", width, abs(height), data, isolated=isolated, unpack=unpack)


def _look_up(
    data: bytes, start: int, palette: bytes, size: tuple[int, int], bits: int, entry: int
) -> Image.Image:
    """Look up rows of palette indices, last to first unless the height is negative."""
    width, height = size[0], abs(size[1])
    stride = (width * bits + 31) // 32 * 4
    if len(data) - start < stride * height:
        raise FormatError("is truncated (a BMP that ends within its pixels)")
    rows = np.frombuffer(data, np.uint8, stride * height, start).reshape(height, stride)
    if bits < 8:
        shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
        rows = (rows[..., None] >> shifts & np.uint8((1 << bits) - 1)).reshape(height, -1)
    indices = rows[:: -1 if size[1] > 0 else 1, :width]
    colours = np.frombuffer(palette, np.uint8, len(palette) // entry * entry).reshape(-1, entry)
    if not len(colours) or int(indices.max()) >= len(colours):
        raise FormatError("is damaged (a BMP whose pixels are not all in its palette)")
    return Image.fromarray(np.ascontiguousarray(colours[:, 2::-1])[indices])


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
    shape = (height, width, CHANNELS[kind])
    unpack = partial(_scaled, data, maxval.end(), shape, int(maxval[1]))
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
