"""BMP, PBM, PGM, PPM and TIFF: formats that lay out pixels in rows, as their headers say.

BMP's rows of palette indices and PNM's samples of any maxval become pixels here: Pillow takes some
palettes for other depths, and scales samples pixel by pixel in Python; the rest is Pillow's.
Numbers in plain text are left to it, in a process of their own. Of a TIFF the first picture stands
under a directory of its own, with the tags that make its pixels; other pages, sub-directories,
metadata and loops among them are left behind. No strip is listed twice, so no more is unpacked than
the file has.
"""

import math
import re
import struct
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from agiqa.data.image_formats.picture import (
    MAX_PARTS,
    MAX_PIXELS,
    ORIENTATION,
    FormatError,
    Picture,
)

RAW, RLE = 0, (1, 2)  # compressions of a BMP
# Parts of a PNM header.
BLANK = rb"(?:[ \t\r\n\f\v]|#[^\r\n]*[\r\n])+"
SIZE = re.compile(rb"P[1-6]" + BLANK + rb"(\d{1,9})" + BLANK + rb"(\d{1,9})")
MAXVAL = re.compile(BLANK + rb"(\d{1,5})[ \t\r\n\f\v]")
LONGEST_HEADER = 1 << 16  # bytes, comments included
CHANNELS = {b"P5": 1, b"P6": 3}
ROWS = 1 << 22  # samples that are scaled at a time
# Tags of a TIFF.
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIPS, SAMPLES, STRIP_ROWS, STRIP_BYTES, PLANES = 273, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 322, 323, 324, 325
EXTRA_SAMPLES, SAMPLE_FORMAT, SUBSAMPLING = 338, 339, 530
FAX_OPTIONS, PREDICTOR, COLOUR_MAP, JPEG_TABLES, LUMA, RANGES = (292, 293), 317, 320, 347, 529, 532
KEPT = {
    WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, STRIPS, SAMPLES, STRIP_ROWS,
    STRIP_BYTES, PLANES, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, EXTRA_SAMPLES, SAMPLE_FORMAT,
    SUBSAMPLING, *FAX_OPTIONS, PREDICTOR, COLOUR_MAP, JPEG_TABLES, LUMA, RANGES,
}  # fmt: skip
KINDS = {1: "B", 3: "H", 4: "I", 5: "II", 7: "B", 16: "Q"}  # what the kept tags may hold
MAX_VALUE = 8 * MAX_PARTS  # bytes of one tag
NONE = 1
# Fax, LZW, JPEG, Deflate, PackBits, LZMA, Zstandard, WebP: by libtiff, which prints its errors
ISOLATED = (2, 3, 4, 5, 7, 8, 32773, 32946, 34925, 50000, 50001)
WHITE_IS_0, GREY, COLOUR, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
UNSIGNED, SIGNED, FLOAT = 1, 2, 3


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


@dataclass(frozen=True)
class _Tag:
    kind: int
    count: int
    raw: bytes  # the value, or the offset of it
    values: tuple[int, ...]


@dataclass(frozen=True)
class _Layout:
    """How numbers lie in the file, as `struct` formats."""

    order: str  # < or >
    word: str  # an offset
    count: str  # of a directory's entries
    entry: str  # tag, type, count, value or offset
    start: int  # where the offset of the first directory stands


def read_tiff(data: bytes) -> Picture:
    """Read the first picture of a TIFF or BigTIFF file.

    Raises:
        FormatError: damaged, or with pixels of which nobody can say how they look.
    """
    order = "<" if data.startswith(b"II") else ">"
    layout = _Layout(order, f"{order}I", f"{order}H", f"{order}HHI4s", 4)
    if data[2:4] in (b"+\0", b"\0+"):
        layout = _Layout(order, f"{order}Q", f"{order}Q", f"{order}HHQ8s", 8)
    (start,) = struct.unpack_from(layout.word, data, layout.start)
    tags = _directory(data, start, layout)

    def value(tag: int, default: int) -> int:
        return tags[tag].values[0] if tag in tags else default

    if WIDTH not in tags or HEIGHT not in tags:
        raise FormatError("is damaged (a TIFF without a size)")
    width, height = value(WIDTH, 0), value(HEIGHT, 0)
    bits = max(tags[BITS].values) if BITS in tags else 1
    photometric, compression = value(PHOTOMETRIC, WHITE_IS_0), value(COMPRESSION, NONE)
    planes = value(PLANES, 1) if value(SAMPLES, 1) > 1 else 1
    _require_known_range(tags, bits, photometric)
    if compression not in (NONE, *ISOLATED):
        raise FormatError(f"is compressed in a way that is not read ({compression}): use Deflate")
    subsampling = tags[SUBSAMPLING].values if SUBSAMPLING in tags else (2, 2)
    if compression == NONE and photometric == YCBCR and subsampling != (1, 1):
        raise FormatError("has uncompressed YCbCr with fewer colours: save it as 8-bit RGB")
    if planes == 2 and bits != 8:
        raise FormatError(f"has separate planes of {bits} bits: save it with its colours together")
    _require_work(tags, data)
    kept_tags = {tag: tags[tag] for tag in sorted(KEPT & tags.keys())}
    return Picture(
        "TIFF",
        width,
        height,
        _rewritten(data, kept_tags, layout),
        value(ORIENTATION, 1) if value(ORIENTATION, 1) in range(1, 9) else 1,
        peak=(1 << bits) - 1 if bits > 8 else 65535,
        inverted=photometric == WHITE_IS_0 and bits > 8,
        deep=bits == 16 and photometric in (COLOUR, CMYK),
        isolated=compression in ISOLATED,
    )


def _require_known_range(tags: dict[int, _Tag], bits: int, photometric: int) -> None:
    formats = set(tags[SAMPLE_FORMAT].values) if SAMPLE_FORMAT in tags else {UNSIGNED}
    advice = "whose range is not known: save it as 8-bit RGB"
    if formats != {UNSIGNED}:
        kind = {SIGNED: "signed", FLOAT: "floating-point"}.get(max(formats), "undefined")
        raise FormatError(f"has {kind} {bits}-bit pixels, {advice}")
    if bits > 16:
        raise FormatError(f"has {bits}-bit pixels, {advice}")
    if photometric not in (WHITE_IS_0, GREY, COLOUR, PALETTE, CMYK, YCBCR):
        raise FormatError(
            f"has colours of a kind that is not read (TIFF's {photometric}): save it as 8-bit RGB"
        )


def _require_work(tags: dict[int, _Tag], data: bytes) -> None:
    """Refuse tiles larger than a picture, and strips that share their bytes."""
    tile = [tags[tag].values[0] for tag in (TILE_WIDTH, TILE_HEIGHT) if tag in tags]
    if math.prod(tile) > MAX_PIXELS:
        raise FormatError("has tiles larger than a picture may be: save it again")
    lengths = [n for tag in (STRIP_BYTES, TILE_BYTES) if tag in tags for n in tags[tag].values]
    if sum(lengths) > len(data):
        raise FormatError("is truncated or damaged (a TIFF whose strips are longer than the file)")


def _directory(data: bytes, start: int, layout: _Layout) -> dict[int, _Tag]:
    """Read the kept tags, and the orientation."""
    (count,) = struct.unpack_from(layout.count, data, start)
    size, tags = struct.calcsize(layout.entry), {}
    if count > MAX_PARTS:
        raise FormatError("is damaged (a TIFF with an endless directory)")
    for index in range(count):
        offset = start + struct.calcsize(layout.count) + index * size
        tag, kind, number, raw = struct.unpack_from(layout.entry, data, offset)
        if tag in tags or tag not in KEPT | {ORIENTATION}:
            continue
        unit = KINDS.get(kind)
        if unit is None or not number:
            raise FormatError(f"is damaged (TIFF tag {tag})")
        length = number * struct.calcsize("<" + unit)
        if length > MAX_VALUE:
            raise FormatError("is made of too many parts: save it again")
        position = offset + size - len(raw)
        if length > len(raw):
            (position,) = struct.unpack(layout.word, raw)
        values = struct.unpack_from(f"{layout.order}{number * len(unit)}{unit[0]}", data, position)
        tags[tag] = _Tag(kind, number, raw, values)
    return tags


def _rewritten(data: bytes, tags: dict[int, _Tag], layout: _Layout) -> bytes:
    """Put a directory of these tags at the file's end; their values stay where they are."""
    body = data + b"\0" * (-len(data) % 8)
    entries = [struct.pack(layout.entry, tag, t.kind, t.count, t.raw) for tag, t in tags.items()]
    start, last = struct.pack(layout.word, len(body)), struct.pack(layout.word, 0)
    directory = struct.pack(layout.count, len(entries)) + b"".join(entries) + last
    rest = body[layout.start + len(start) :]
    return b"".join([body[: layout.start], start, rest, directory])
