"""Files that somebody may send to `agiqa serve`, made for its tests."""

import io
import struct
import zlib

from PIL import Image


def bomb(side: int = 30_000) -> bytes:
    """A PNG of a hundred kilobytes whose header promises gigabytes."""
    return png(side, side, rows=1000)


def png(width: int, height: int, rows: int = 0) -> bytes:
    """A black PNG; it ends after so many rows where they are given."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(bytes(1 + width * 3)) for _ in range(rows or height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels + packer.flush()) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def many_scans(scans: int = 3000, side: int = 8000) -> bytes:
    """A progressive JPEG of half a megabyte whose every scan goes over the whole picture."""
    file = io.BytesIO()
    Image.new("L", (side, side)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * scans + data[-2:]


def wide(length: int = 64_000_000) -> bytes:
    """A PNG of a hundred kilobytes with one row of so many pixels."""
    return png(length, 1)
