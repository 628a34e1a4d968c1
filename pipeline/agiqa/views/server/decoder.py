"""The program of one child process that decodes pictures of strangers, within the kernel's limits.

    python -m agiqa.views.server.decoder SECONDS MEGABYTES

A job is a line: the longer side of a small JPEG, or 0 for none, its quality, and the file's name in
hexadecimal digits. Its answer is a line with two lengths, then as much of each: the reason why the
file cannot be used, and the JPEG.

Decoders of images are C code over bytes that anyone may send: a file that keeps one busy for longer
than the processor time of a job, or needs more memory, ends this process and nothing else. Nothing
of torch is imported here; the start takes a fraction of a second.
"""

import io
import math
import os
import resource
import sys
import time
from pathlib import Path

from PIL import Image

from agiqa.data.images import ImageError, decode

MIB = 2**20


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
        side, quality, name = line.split()
        reason, content = _answer(
            Path(os.fsdecode(bytes.fromhex(name.decode()))), int(side), int(quality)
        )
        answers.write(b"%d %d\n" % (len(reason), len(content)) + reason + content)
        answers.flush()


def _answer(path: Path, side: int, quality: int) -> tuple[bytes, bytes]:
    """Why the file cannot be used, or nothing; and the JPEG where one is wanted."""
    try:
        image = decode(path)
        if side == 0:
            return b"", b""
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
    except ImageError as error:
        return error.reason.encode(), b""
    except MemoryError:
        return b"is too large for the memory there is", b""
    return b"", file.getvalue()


if __name__ == "__main__":
    main()
