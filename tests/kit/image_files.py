"""Image files written byte by byte, so that what they hold is known without a decoder."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np

Array = np.ndarray


def packed(samples: Array, bits: int, order: str = ">") -> bytes:
    """Rows of samples `(H, N)`, each row filled up to a byte."""
    if bits == 16:
        return samples.astype(f"{order}u2").tobytes()
    if bits == 32:
        return samples.astype(f"{order}{samples.dtype.kind}4").tobytes()
    digits = (samples[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(digits.reshape(len(samples), -1).astype(np.uint8), axis=1).tobytes()


def chunk(name: bytes, content: bytes) -> bytes:
    """A PNG's chunk."""
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def png(samples: Array, bits: int, colour_type: int, *before: bytes, after: bytes = b"") -> bytes:
    """A PNG of samples `(H, W, C)`; chunks `before` its pixels, and `after` them."""
    height, width, _ = samples.shape
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    rows = packed(samples.reshape(height, -1), bits)
    stride = len(rows) // height
    lines = b"".join(b"\0" + rows[at : at + stride] for at in range(0, len(rows), stride))
    chunks = [chunk(b"IHDR", header), *before, chunk(b"IDAT", zlib.compress(lines)), after]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def tiff(
    samples: Array,
    bits: int,
    photometric: int,
    order: str = "<",
    *,
    planar: bool = False,
    strip_rows: int = 0,
    packed_as: int = 1,
    big: bool = False,
    tags: Sequence[tuple[int, Sequence[int]]] = (),
) -> bytes:
    """A TIFF of samples `(H, W, C)`, in strips; `packed_as` 8: Deflate. Tags may be replaced."""
    height, width, count = samples.shape
    rows = strip_rows or height
    planes = [samples[..., [at]] for at in range(count)] if planar else [samples]
    strips = []
    for plane in planes:
        for top in range(0, height, rows):
            part = plane[top : top + rows]
            strips.append(packed(part.reshape(len(part), -1), bits, order))
    if packed_as == 8:
        strips = [zlib.compress(strip) for strip in strips]
    start = 16 if big else 8
    places = [start + sum(map(len, strips[:at])) for at in range(len(strips))]
    listed: dict[int, Sequence[int]] = {
        256: [width],
        257: [height],
        258: [bits] * count,
        259: [packed_as],
        262: [photometric],
        273: places,
        277: [count],
        278: [rows],
        279: [len(strip) for strip in strips],
        284: [2 if planar else 1],
    }
    listed |= dict(tags)
    return tiff_of(listed, b"".join(strips), order, big)


def tiff_of(
    tags: dict[int, Sequence[int]], content: bytes, order: str = "<", big: bool = False
) -> bytes:
    """A TIFF of one directory behind its content; values are short where they fit."""
    word, room = ("Q", 8) if big else ("I", 4)
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}H", 43 if big else 42)
    head += struct.pack(f"{order}HH", 8, 0) if big else b""
    place = len(head) + room + len(content)
    content += b"\0" * (place % 2)
    place += place % 2
    size = struct.calcsize(f"{order}HH{word}") + room
    behind = place + (8 if big else 2) + size * len(tags) + room
    entries, values = b"", b""
    for tag, numbers in sorted(tags.items()):
        kind, unit = (3, "H") if max(numbers) < 65536 else (4, "I")
        value = struct.pack(f"{order}{len(numbers)}{unit}", *numbers)
        if len(value) > room:
            where = struct.pack(f"{order}{word}", behind + len(values))
            values += value + b"\0" * (len(value) % 2)
            value = where
        entries += struct.pack(f"{order}HH{word}", tag, kind, len(numbers))
        entries += value.ljust(room, b"\0")
    count = struct.pack(f"{order}{'Q' if big else 'H'}", len(tags))
    end = struct.pack(f"{order}{word}", 0)
    return head + struct.pack(f"{order}{word}", place) + content + count + entries + end + values


def bmp(
    rows: bytes,
    size: tuple[int, int],
    bits: int,
    *,
    compression: int = 0,
    palette: bytes = b"",
    colours: int = 0,
    masks: Sequence[int] = (),
) -> bytes:
    """A BMP of rows as they lie in the file; with masks a V4 header."""
    extra = struct.pack("<4I", *masks).ljust(68, b"\0") if masks else b""
    start = 14 + 40 + len(extra) + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40 + len(extra), *size, 1, bits, compression, len(rows),
                       2835, 2835, colours, 0)  # fmt: skip
    head = b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start)
    return head + info + extra + palette + rows


def gif(
    frames: Sequence[tuple[Array, tuple[int, int], int | None]],
    screen: tuple[int, int],
    palette: Array,
    before: bytes = b"",
) -> bytes:
    """A GIF of frames, each of indices `(H, W)` below 128, its place and its transparent index.

    LZW codes of 8 bits with a clear code after 100 of them: none is longer, none is looked up.
    """
    table = palette.astype(np.uint8).tobytes().ljust(3 * 128, b"\0")
    parts = [b"GIF89a", struct.pack("<HHBBB", *screen, 0xF6, 0, 0), table, before]
    for indices, place, transparent in frames:
        if transparent is not None:
            parts.append(b"!\xf9\x04" + struct.pack("<BHBB", 1, 10, transparent, 0))
        parts.append(b"," + struct.pack("<4HB", *place, *indices.shape[::-1], 0) + b"\x07")
        flat, codes = indices.reshape(-1).tolist(), []
        for at in range(0, len(flat), 100):
            codes += [128, *flat[at : at + 100]]
        codes = bytes([*codes, 129])
        blocks = [codes[at : at + 255] for at in range(0, len(codes), 255)]
        parts += [bytes([len(block)]) + block for block in blocks] + [b"\0"]
    return b"".join(parts) + b";"


def exif(orientation: int, order: str = "<") -> bytes:
    """EXIF data with nothing but an orientation."""
    return tiff_of({0x0112: [orientation]}, b"", order)
