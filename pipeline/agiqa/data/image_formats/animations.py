"""GIF and WebP: the picture, or an animation's first frame, on its screen; metadata stay behind."""

import struct

from agiqa.data.image_formats.picture import FormatError, Picture, orientation, require_parts

# GIF: flags of a colour table, and marks of its blocks.
HAS_TABLE, TABLE_BITS = 0x80, 0x07
EXTENSION, IMAGE, CONTROL = b"!", b",", 0xF9
# WebP: flags of the extended header, and chunks that hold a picture.
ANIMATED, ALPHA = 0x02, 0x10
PICTURE = (b"VP8 ", b"VP8L", b"ANMF")


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
    if name == b"VP8 ":
        if content[3:6] != b"\x9d\x01\x2a":
            raise FormatError("is damaged (a WebP without a frame header)")
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 6))
        return Picture("WEBP", width, height, _riff([_chunks(data, 12)[0]]))
    if name == b"VP8L":
        if content[:1] != b"\x2f":
            raise FormatError("is damaged (a WebP without a frame header)")
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
