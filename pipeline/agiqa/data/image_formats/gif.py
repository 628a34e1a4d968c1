"""GIF: the first frame, on the screen that it may cover in part; comments are left behind."""

import struct

from agiqa.data.image_formats.picture import FormatError, Picture, require_parts

HAS_TABLE, TABLE_BITS = 0x80, 0x07
EXTENSION, IMAGE, CONTROL = b"!", b",", 0xF9


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
