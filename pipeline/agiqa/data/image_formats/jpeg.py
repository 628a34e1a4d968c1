"""JPEG: the segments that make pixels; metadata, previews and further pictures are left behind.

Each scan goes over the whole picture, however few bytes it has, so their number times the pixels is
bounded. 12-bit samples are refused; arithmetic coding and lossless JPEG are decoded in a process of
their own.
"""

import re
import struct

from agiqa.data.image_formats.picture import FormatError, Picture, orientation, require_parts

MAX_SCANS = 500
MAX_WORK = 12 * 64_000_000  # scans times pixels; ordinary files have 10 scans or so
MAX_HEADER = 1 << 18  # bytes of tables before the first scan; 1 KB is usual
SOI, EOI, SOS, APP0, APP1, APP14, COM = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xEE, 0xFE
FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
HUFFMAN = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
NO_LENGTH = (0x00, 0x01, *range(0xD0, SOI + 1))  # stuffing, TEM, restarts, SOI
IN_SCAN = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")  # what ends a scan's data
EXIF, ADOBE_XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


def read_jpeg(data: bytes) -> Picture:
    """Read the picture of a JPEG file.

    Raises:
        FormatError: truncated, of a kind that is not read, or too much work.
    """
    segments, frame, turned, offset = _header(data)
    kind, bits, height, width = struct.unpack_from(">BxxBHH", frame)
    if bits != 8:
        raise FormatError(f"is a JPEG of {bits} bits a sample, which is not read: save it with 8")
    scan_data = data[offset:]
    if (scans := scan_data.count(b"\xff\xda")) > 1:
        scan_data = scan_data[: _end(scan_data)]
        scans = scan_data.count(b"\xff\xda")
        if scans > MAX_SCANS or scans * width * height > MAX_WORK:
            raise FormatError(
                f"has {scans:,} scans of {width} x {height} pixels, too much work: save it again "
                "as an ordinary JPEG"
            )
    content = b"".join([*segments, scan_data])
    return Picture("JPEG", width, height, content, turned, isolated=kind not in HUFFMAN)


def _header(data: bytes) -> tuple[list[bytes], bytes, int, int]:
    """Collect what precedes the first scan: segments to keep, frame, orientation, its end."""
    segments, frame, xmp = [data[:2]], b"", b""
    exif: list[bytes] = []
    offset, parts, tables = 2, 0, 0
    while True:
        marker, offset = _next_marker(data, offset)
        require_parts(parts := parts + 1)
        if marker in NO_LENGTH:
            continue
        if marker == EOI:
            raise FormatError("is damaged (a JPEG that ends before its picture)")
        segment = _segment(data, offset)
        if marker == SOS:
            break
        if marker in FRAMES:
            if frame:
                raise FormatError("is damaged (a JPEG with two frame headers)")
            frame = bytes([marker]) + segment
        if marker == APP1:
            if segment.startswith(EXIF, 2):
                exif.append(segment[8:])
            elif segment.startswith(ADOBE_XMP, 2):
                xmp = xmp or segment
        elif marker in (APP0, APP14) or not APP0 <= marker <= COM:
            segments.append(b"\xff" + bytes([marker]) + segment)
            if (tables := tables + len(segment)) > MAX_HEADER:
                raise FormatError(f"has more than {MAX_HEADER:,} bytes of tables: save it again")
        offset += len(segment)
    if not frame:
        raise FormatError("is damaged (a JPEG without a frame header)")
    return segments, frame, orientation(b"".join(exif), xmp), offset - 2


def _next_marker(data: bytes, offset: int) -> tuple[int, int]:
    """Find the next marker's code, and where its segment begins."""
    offset = data.find(b"\xff", offset)
    while offset >= 0 and data[offset + 1 : offset + 2] == b"\xff":
        offset += 1
    if offset < 0 or offset + 1 >= len(data):
        raise FormatError("is truncated (a JPEG that ends before its picture)")
    return data[offset + 1], offset + 2


def _segment(data: bytes, offset: int) -> bytes:
    """Cut out length and content of the segment at this offset."""
    (length,) = struct.unpack_from(">H", data, offset)
    if length < 2 or offset + length > len(data):
        raise FormatError("is truncated (a JPEG that ends within a segment)")
    return data[offset : offset + length]


def _end(data: bytes) -> int:
    """Find where the picture ends that begins with the data's first scan."""
    offset, parts = 0, 0
    while match := IN_SCAN.search(data, offset):
        require_parts(parts := parts + 1)
        marker, offset = data[match.end() - 1], match.end()
        if marker == EOI:
            return offset
        if marker not in NO_LENGTH:
            offset += len(_segment(data, offset))
    return len(data)
