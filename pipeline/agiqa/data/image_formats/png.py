"""PNG: header, palette and pixels of the still picture; frames of an animation are left behind.

What Pillow has not is worked out here: one transparent grey or colour of any depth, and the low
bytes of 16-bit grey with alpha, whose 4 bytes a pixel are unpacked like 8-bit RGBA.
"""

import binascii
import struct
import zlib

from agiqa.data.image_formats.picture import FormatError, Picture, orientation, require_parts

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6
MAX_TEXT = 1 << 20  # bytes of unpacked text that are searched for an orientation
PROFILE = "Raw profile type exif"
EXIF_TEXT, XMP_TEXT = PROFILE.encode() + b"\0", b"XML:com.adobe.xmp\0"


def read_png(data: bytes) -> Picture:
    """Read the picture of a PNG file.

    Raises:
        FormatError: the header is damaged.
    """
    (length,) = struct.unpack_from(">I", data, 8)
    if data[12:16] != b"IHDR" or length != 13:
        raise FormatError("is damaged (a PNG without a header)")
    width, height, depth, kind = struct.unpack_from(">IIBB", data, 16)
    pixels, once, exif, xmp = [], {}, b"", b""
    offset, parts = 33, 0
    while offset + 8 <= len(data):
        require_parts(parts := parts + 1)
        (length,), name = struct.unpack_from(">I", data, offset), data[offset + 4 : offset + 8]
        end = offset + 12 + length
        if name == b"IDAT":
            pixels.append(data[offset:end])
        elif name in (b"PLTE", b"tRNS") and length <= 768 and not pixels:
            once[name] = data[offset:end]
        elif name == b"eXIf":
            exif = data[offset + 8 : end - 4]
        elif name in (b"tEXt", b"zTXt") and data.startswith(EXIF_TEXT, offset + 8):
            exif = exif or _profile(name, data[offset + 8 + len(EXIF_TEXT) : end - 4])
        elif name == b"iTXt" and data.startswith(XMP_TEXT, offset + 8):
            xmp = _text(data[offset + 8 + len(XMP_TEXT) : end - 4])
        elif name == b"IEND":
            break
        offset = end
    hole = once.pop(b"tRNS", b"") if kind in (GREY, COLOUR) else b""
    split = (kind, depth) == (GREY_ALPHA, 16)
    if split:
        depth, kind = 8, COLOUR_ALPHA
    header = struct.pack(">IIBB", width, height, depth, kind) + data[26:29]
    header = _chunk(b"IHDR", header) if split else data[8:33]
    tables = [once[name] for name in (b"PLTE", b"tRNS") if name in once]
    return Picture(
        "PNG",
        width,
        height,
        b"".join([SIGNATURE, header, *tables, *pixels, _chunk(b"IEND", b"")]),
        orientation(exif, xmp),
        deep=depth == 16 and kind in (COLOUR, COLOUR_ALPHA),
        split_bytes=split,
        transparent=_transparent(hole, kind, depth),
    )


def _transparent(chunk: bytes, kind: int, depth: int) -> tuple[int, ...] | None:
    if not chunk:
        return None
    most = (1 << depth) - 1
    scale = 255 // most if depth < 8 else 1  # as the pixels are scaled
    values = struct.unpack_from(">H" if kind == GREY else ">3H", chunk, 8)
    return tuple((value & most) * scale for value in values)


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def _profile(name: bytes, content: bytes) -> bytes:
    """Decode EXIF as ImageMagick writes it."""
    return exif_of_text(content if name == b"tEXt" else _unpacked(content[1:]))


def exif_of_text(text: bytes) -> bytes:
    """Decode a text of a name, a length, and hexadecimal digits; b"" where it is none."""
    try:
        return binascii.unhexlify(b"".join(text.split()[2:]))
    except ValueError:
        return b""


def _text(content: bytes) -> bytes:
    """Cut out an iTXt chunk's text after its keyword."""
    packed, (_, _, text) = content[:1] == b"\1", content[2:].partition(b"\0")
    text = text.partition(b"\0")[2]
    return _unpacked(text) if packed else text


def _unpacked(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, MAX_TEXT)
    except zlib.error:
        return b""
