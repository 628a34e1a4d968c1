"""What the largest and slowest images that are accepted take to decode: seconds and memory.

    python benchmarks/image_limits.py [--side 8000]

Each is decoded in a process of its own. Memory is the peak above what the process had before, the
file's bytes included; of formats that are decoded in yet another process, that one's is given too.
"""

import argparse
import io
import multiprocessing
import resource
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

MIB = 2**20


def noise(side: int, channels: int, high: int = 256) -> np.ndarray:
    """Pixels that no format can make small."""
    dtype = np.uint8 if high == 256 else np.uint16
    return np.random.default_rng(0).integers(0, high, (side, side, channels), dtype=dtype)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """The image as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(pixels: np.ndarray, colour_type: int) -> bytes:
    """A PNG of 16-bit pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    packer, rows = zlib.compressobj(1), []
    for row in pixels:
        rows.append(packer.compress(b"\0" + row.astype(">u2").tobytes()))
    content = b"".join([*rows, packer.flush()])
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour_type, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", content), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def scans(data: bytes, count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    return data[:-2] + data[data.rfind(b"\xff\xda") : -2] * count + data[-2:]


def files(side: int) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Names of files, and what makes them."""
    smooth = Image.linear_gradient("L").resize((side, side))
    flat = Image.merge("RGB", [smooth] * 3)

    def grain(channels: int, mode: str) -> Image.Image:
        return Image.frombytes(mode, (side, side), noise(side, channels).tobytes())

    yield "JPEG, baseline", lambda: saved(flat, "JPEG", quality=95, subsampling=0)
    yield "JPEG, progressive", lambda: saved(flat, "JPEG", progressive=True, subsampling=0)
    yield (
        "JPEG, progressive, 16 scans",
        lambda: scans(saved(flat, "JPEG", progressive=True, subsampling=0), 6),
    )
    yield (
        "JPEG, progressive, CMYK",
        lambda: saved(grain(4, "CMYK"), "JPEG", quality=30, progressive=True, subsampling=0),
    )
    yield "PNG, RGB", lambda: saved(flat, "PNG", compress_level=1)
    yield "PNG, RGBA of one colour", lambda: saved(flat.convert("RGBA"), "PNG", compress_level=9)
    yield "PNG, 16-bit RGBA of one colour", lambda: png(np.zeros((side, side, 4), np.uint16), 6)
    yield "PNG, 16-bit grey, alpha", lambda: png(np.zeros((side, side, 2), np.uint16), 4)
    yield "WebP, lossy", lambda: saved(flat, "WEBP", method=0)
    yield (
        "WebP, lossless, alpha",
        lambda: saved(flat.convert("RGBA"), "WEBP", lossless=True, quality=0, method=0),
    )
    yield "GIF", lambda: saved(smooth, "GIF")
    yield "BMP, 8-bit palette", lambda: saved(smooth.convert("P"), "BMP")
    yield "BMP", lambda: saved(flat, "BMP")
    yield "TIFF", lambda: saved(flat, "TIFF")
    yield (
        "TIFF, Deflate, RGBA",
        lambda: saved(flat.convert("RGBA"), "TIFF", compression="tiff_adobe_deflate"),
    )
    yield "PPM", lambda: saved(flat, "PPM")
    yield "PGM, 16-bit", lambda: saved(smooth.convert("I;16"), "PPM")


def _status(field: str) -> int:
    """A field of this process's memory, such as VmHWM, in MiB."""
    line = Path("/proc/self/status").read_text().partition(f"{field}:")[2]
    return int(line.split()[0]) // 1024


def _decode(path: Path, answer: "multiprocessing.Queue[tuple[object, ...]]") -> None:
    from agiqa.data.images import ImageError, decode

    before, clock = _status("VmRSS"), time.process_time()
    outcome = ""
    try:
        decode(path)
    except ImageError as error:
        outcome = error.reason
    seconds = time.process_time() - clock
    child = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds += child.ru_utime + child.ru_stime
    own = _status("VmHWM") - before
    answer.put((seconds, own, child.ru_maxrss * 1024 // MIB, outcome))


def main() -> None:
    """Print a table."""
    chosen = argparse.ArgumentParser(description=__doc__)
    chosen.add_argument("--side", type=int, default=8000)
    chosen.add_argument("--folder", type=Path, default=Path("/tmp"))
    chosen.add_argument("--only", default="")
    options = chosen.parse_args()
    start = multiprocessing.get_context("spawn")
    print(f"| {options.side} x {options.side} | file MiB | s | MiB | MiB of its process |")
    print("|---|---|---|---|---|")
    path = options.folder / f"image-limits-{options.side}"
    for name, make in files(options.side):
        if options.only not in name:
            continue
        path.write_bytes(make())
        answer = start.Queue()
        process = start.Process(target=_decode, args=(path, answer))
        process.start()
        seconds, own, child, outcome = answer.get()
        process.join()
        size = path.stat().st_size / MIB
        print(f"| {name} | {size:.0f} | {seconds:.1f} | {own} | {child or '–'} | {outcome}")
        sys.stdout.flush()
    path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
