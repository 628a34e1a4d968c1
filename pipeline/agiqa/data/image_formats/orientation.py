"""Which way is up: the orientation in EXIF data, else in XMP; nothing else of them is read.

Pillow's own reader unpacks every field of the directory, and fields may overlap: 1 MB can say
60 GB.
"""

import re
import struct

TAG, SHORT = 0x0112, 3
XMP = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


def orientation(exif: bytes, xmp: bytes = b"") -> int:
    """1 (as it is stored) to 8; 1 where it is damaged or not said."""
    try:
        said = _in_exif(exif)
    except struct.error:
        said = None
    if said is None and (match := XMP.search(xmp)):
        said = int(match[1])
    return said if said is not None and 1 <= said <= 8 else 1


def _in_exif(exif: bytes) -> int | None:
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return None
    (start,) = struct.unpack_from(order + "I", exif, 4)
    (count,) = struct.unpack_from(order + "H", exif, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, entry)
        if tag == TAG:
            return int(value) if kind == SHORT else None
    return None
