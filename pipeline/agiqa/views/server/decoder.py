"""The program of one child process that decodes pictures of strangers, within the kernel's limits.

    python -m agiqa.views.server.decoder SECONDS MEGABYTES

A job is a line: what is wanted, a number, and the file's name in hexadecimal digits. Wanted is a
JPEG of that quality whose longer side has so many pixels (`160 80 NAME`), or the pixels themselves
where there are at most so many (`rgb 4000000 NAME`). Its answer is a line with two lengths, then as
much of each: the reason why the file cannot be used, and what was wanted. Before pixels stand width
and height; where there are too many, nothing comes, but the file has been decoded in full.

Decoders of images are C code over bytes that anyone may send: a file that keeps one busy for longer
than the processor time of a job, or needs more memory, ends this process and nothing else. Nothing
of torch is imported here; the start takes a fraction of a second.
"""

import io
import math
import os
import resource
import struct
import sys
import time
from pathlib import Path

from PIL import Image

from agiqa.data.images import ImageError, decode

MIB = 2**20
SIZE = "<II"  # width and height before the pixels


def main() -> None:
    """Answer jobs until nobody sends any more."""
    seconds, megabytes = float(sys.argv[1]), int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints must not end up among the answers
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (megabytes * MIB,) * 2)
    while line := sys.stdin.buffer.readline():
        most = math.ceil(time.process_time() + seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))
        wanted, number, name = line.decode().split()
        path = Path(os.fsdecode(bytes.fromhex(name)))
        reason, content = _answer(path, wanted, int(number))
        answers.write(b"%d %d\n" % (len(reason), len(content)) + reason + content)
        answers.flush()


def _answer(path: Path, wanted: str, number: int) -> tuple[bytes, bytes]:
    """Why the file cannot be used, or nothing; and what is wanted of it."""
    try:
        image = decode(path)
        if wanted == "rgb":
            fits = image.width * image.height <= number
            return b"", struct.pack(SIZE, *image.size) + image.tobytes() if fits else b""
        image.thumbnail((int(wanted), int(wanted)), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=number)
    except ImageError as error:
        return error.reason.encode(), b""
    except MemoryError:
        return b"is too large for the memory there is", b""
    return b"", file.getvalue()


if __name__ == "__main__":
    main()
