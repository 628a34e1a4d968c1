"""JPEG 2000: the size alone; layers, tiles and precincts are left to a process with limits."""

import struct

from agiqa.data.image_formats.picture import FormatError, Picture, require_parts

CODESTREAM = b"\xff\x4f\xff\x51"
BOXES = b"\0\0\0\x0cjP  \r\n\x87\n"


def read_jpeg2000(data: bytes) -> Picture:
    """Read the picture of a JPEG 2000 file or bare codestream.

    Raises:
        FormatError: damaged, or with signed samples.
    """
    start = 0 if data.startswith(CODESTREAM) else _codestream(data)
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    (components,) = struct.unpack_from(">H", data, start + 40)
    depths = [data[start + 42 + 3 * component] for component in range(components)]
    if any(depth & 0x80 for depth in depths):
        raise FormatError("has signed pixels, whose range is not known: save it as 8-bit RGB")
    return Picture("JPEG2000", right - left, bottom - top, data, isolated=True)


def _codestream(data: bytes) -> int:
    """Find where the codestream begins within the file's boxes."""
    offset, parts = 0, 0
    while offset + 8 <= len(data):
        require_parts(parts := parts + 1)
        length, kind = struct.unpack_from(">I4s", data, offset)
        head = 8
        if length == 1:
            (length,), head = struct.unpack_from(">Q", data, offset + 8), 16
        if kind == b"jp2c":
            if not data.startswith(CODESTREAM, offset + head):
                break
            return offset + head
        if length < head:
            break
        offset += length
    raise FormatError("is damaged (a JPEG 2000 file without a picture)")
