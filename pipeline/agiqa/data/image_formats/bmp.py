"""BMP: palettes are looked up here (Pillow takes some for other depths); the rest is Pillow's."""

import struct

import numpy as np
from PIL import Image

from agiqa.data.image_formats.picture import FormatError, Picture

RAW, RLE = 0, (1, 2)  # compressions


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

    def unpack() -> Image.Image:
        return _look_up(data[pixels:], palette, (width, height), bits, entry)

    has_palette = bits in (1, 4, 8) and compression == RAW
    return Picture(
        "BMP",
        width,
        abs(height),
        data,
        isolated=compression in RLE,
        unpack=unpack if has_palette else None,
    )


def _look_up(
    content: bytes, palette: bytes, size: tuple[int, int], bits: int, entry: int
) -> Image.Image:
    """Look up rows of palette indices, last to first unless the height is negative."""
    width, height = size[0], abs(size[1])
    stride = (width * bits + 31) // 32 * 4
    if len(content) < stride * height:
        raise FormatError("is truncated (a BMP that ends within its pixels)")
    rows = np.frombuffer(content, np.uint8, stride * height).reshape(height, stride)
    if bits < 8:
        shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
        rows = (rows[..., None] >> shifts & np.uint8((1 << bits) - 1)).reshape(height, -1)
    indices = rows[:: -1 if size[1] > 0 else 1, :width]
    colours = np.frombuffer(palette, np.uint8, len(palette) // entry * entry).reshape(-1, entry)
    if not len(colours) or int(indices.max()) >= len(colours):
        raise FormatError("is damaged (a BMP whose pixels are not all in its palette)")
    return Image.fromarray(np.ascontiguousarray(colours[:, 2::-1])[indices])
