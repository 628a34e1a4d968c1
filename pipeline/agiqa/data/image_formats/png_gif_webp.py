"""PNG, GIF and WebP: the still picture, or an animation's first frame; metadata stay behind.

What Pillow has not is worked out here: a PNG's one transparent grey or colour of any depth, and the
low bytes of 16-bit grey with alpha, whose 4 bytes a pixel are unpacked like 8-bit RGBA.
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
# GIF: flags of a colour table, and marks of its blocks.
HAS_TABLE, TABLE_BITS = 0x80, 0x07
EXTENSION, IMAGE, CONTROL = b"!", b",", 0xF9
# WebP: flags of the extended header, and chunks that hold a picture.
ANIMATED, ALPHA = 0x02, 0x10
PICTURE = (b"VP8 ", b"VP8L", b"ANMF")


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
    header, split = data[8:33], (kind, depth) == (GREY_ALPHA, 16)
    if split:
        depth, kind = 8, COLOUR_ALPHA
        header = _chunk(b"IHDR", struct.pack(">IIBB", width, height, depth, kind) + data[26:29])
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


def read_gif(data: bytes) -> Picture:
    """Read the first picture of a GIF file.

    Raises:
        FormatError: there is none.
    """
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    start = 13 + (3 << (flags & TABLE_BITS) + 1 if flags & HAS_TABLE else 0)
    offset, parts, control = start, 0, b""
    while (kind := data[offset : offset + 1]) == EXTENSION:
        first, offset = offset, offset + 2
        while offset < len(data) and (length := data[offset]):
            require_parts(parts := parts + 1)
            offset += 1 + length
        offset += 1
        if data[first + 1] == CONTROL:
            control = data[first:offset]
    if kind != IMAGE:
        raise FormatError(f"is {'damaged' if kind else 'truncated'} (a GIF without a picture)")
    left, top, wide, high = struct.unpack_from("<4H", data, offset + 1)
    area = (left, top, left + wide, top + high)
    return Picture(
        "GIF",
        max(width, area[2]),
        max(height, area[3]),
        data[:start] + control + data[offset:],
        area=area,
    )


def read_webp(data: bytes) -> Picture:
    """Read the picture of a WebP file.

    Raises:
        FormatError: damaged.
    """
    name, content = data[12:16], data[20:]
    if name in (b"VP8 ", b"VP8L"):
        lossy = name == b"VP8 "
        if content[3:6] != b"\x9d\x01\x2a" if lossy else content[:1] != b"\x2f":
            raise FormatError("is damaged (a WebP without a frame header)")
        if lossy:
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 6))
        else:
            (bits,) = struct.unpack_from("<I", content, 1)
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        return Picture("WEBP", width, height, _riff([_chunks(data, 12)[0]]))
    if name != b"VP8X":
        raise FormatError("is damaged (a WebP of unknown layout)")
    flags, sides = content[0], content[4:10] + b"\0"
    width = (struct.unpack_from("<I", sides, 0)[0] & 0xFFFFFF) + 1
    height = (struct.unpack_from("<I", sides, 3)[0] & 0xFFFFFF) + 1
    chunks: list[bytes] = []
    exif = xmp = b""
    for chunk in _chunks(data, 12)[1:]:
        kind = chunk[:4]
        if kind in (b"ANIM", b"ALPH", *PICTURE) and not (chunks and chunks[-1][:4] in PICTURE):
            chunks.append(chunk)
        elif kind == b"EXIF":
            exif = chunk[8:]
        elif kind == b"XMP ":
            xmp = chunk[8:]
    header = data[12:20] + bytes([flags & (ANIMATED | ALPHA)]) + content[1:10]
    return Picture("WEBP", width, height, _riff([header, *chunks]), orientation(exif, xmp))


def _chunks(data: bytes, offset: int) -> list[bytes]:
    """Split the data from this offset on into chunks, each with its name and length."""
    chunks: list[bytes] = []
    while offset + 8 <= len(data):
        require_parts(len(chunks))
        (length,) = struct.unpack_from("<I", data, offset + 4)
        chunks.append(data[offset : offset + 8 + length + length % 2])
        offset += 8 + length + length % 2
    return chunks


def _riff(chunks: list[bytes]) -> bytes:
    content = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content)) + content
