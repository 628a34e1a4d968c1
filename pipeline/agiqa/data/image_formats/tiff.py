"""TIFF: the first picture under a directory of its own, with the tags that make its pixels.

Other pages, sub-directories, metadata and loops among them are left behind. No strip is listed
twice, so no more is unpacked than the file has.
"""

import math
import struct
from dataclasses import dataclass

from agiqa.data.image_formats.picture import (
    MAX_PARTS,
    MAX_PIXELS,
    ORIENTATION,
    FormatError,
    Picture,
)

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


@dataclass(frozen=True)
class _Tag:
    kind: int
    count: int
    raw: bytes  # the value, or the offset of it
    values: tuple[int, ...]


@dataclass(frozen=True)
class _Layout:
    """How numbers lie in the file."""

    order: str  # < or >
    big: bool

    @property
    def word(self) -> str:
        return "Q" if self.big else "I"

    @property
    def entry(self) -> str:  # tag, type, count, value or offset
        return self.order + ("HHQ8s" if self.big else "HHI4s")


def read_tiff(data: bytes) -> Picture:
    """Read the first picture of a TIFF or BigTIFF file.

    Raises:
        FormatError: damaged, or with pixels of which nobody can say how they look.
    """
    big = data[2:4] in (b"+\0", b"\0+")
    layout = _Layout("<" if data.startswith(b"II") else ">", big)
    (start,) = struct.unpack_from(layout.order + layout.word, data, 8 if big else 4)
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
    counted = layout.order + ("Q" if layout.big else "H")
    (count,) = struct.unpack_from(counted, data, start)
    size, tags = struct.calcsize(layout.entry), {}
    if count > MAX_PARTS:
        raise FormatError("is damaged (a TIFF with an endless directory)")
    for index in range(count):
        offset = start + struct.calcsize(counted) + index * size
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
            (position,) = struct.unpack(layout.order + layout.word, raw)
        values = struct.unpack_from(f"{layout.order}{number * len(unit)}{unit[0]}", data, position)
        tags[tag] = _Tag(kind, number, raw, values)
    return tags


def _rewritten(data: bytes, tags: dict[int, _Tag], layout: _Layout) -> bytes:
    """Put a directory of these tags at the file's end; their values stay where they are."""
    body = data + b"\0" * (-len(data) % 8)
    counted = layout.order + ("Q" if layout.big else "H")
    entries = [struct.pack(layout.entry, tag, t.kind, t.count, t.raw) for tag, t in tags.items()]
    last = struct.pack(layout.order + layout.word, 0)
    start = struct.pack(layout.order + layout.word, len(body))
    head = 8 if layout.big else 4
    directory = struct.pack(counted, len(entries)) + b"".join(entries) + last
    return b"".join([body[:head], start, body[head + len(start) :], directory])
