"""Unpacking in a process of its own, which the kernel ends at its limits of time and memory.

For what a header cannot bound: JPEG 2000, compressed TIFF, run lengths, numbers in plain text.
The file goes in on standard input; out comes the size and RGB pixels, or a line that says why not.
"""

import os
import struct
import subprocess
import sys
from pathlib import Path

from PIL import Image

from agiqa.data.image_formats.picture import FormatError

SECONDS = 20  # of processor time
WAIT_SECONDS = 200.0  # by the clock, on a machine that does much else
MEGABYTES = 2048  # that it may allocate; 64 megapixels of JPEG 2000 with alpha take 1,600
DONE, REFUSED = b"\1", b"\0"
ROOT = Path(__file__).parents[3]  # where the package lies
CHILD = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from agiqa.data.image_formats.isolated import main"
)


def unpack_isolated(data: bytes) -> Image.Image:
    """Unpack the file's picture as 8-bit RGB, upright.

    Raises:
        FormatError: it cannot be used, or not within the limits.
    """
    too_much = FormatError(
        f"takes more than {SECONDS} s or {MEGABYTES} MB to decode: make it smaller, or save it as "
        "PNG"
    )
    quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OPJ_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", f"{CHILD}; main({SECONDS}, {MEGABYTES})", str(ROOT)],
            input=data,
            capture_output=True,
            timeout=WAIT_SECONDS,
            check=False,
            env={**os.environ, **quiet},
        )
    except subprocess.TimeoutExpired:
        raise too_much from None
    except OSError as error:
        raise FormatError(f"cannot be decoded now: no process for it ({error.strerror})") from error
    if done.stdout.startswith(DONE):
        size = struct.unpack_from("<II", done.stdout, 1)
        return Image.frombytes("RGB", size, memoryview(done.stdout)[9:])
    if done.stdout.startswith(REFUSED):
        raise FormatError(done.stdout[1:].decode())
    raise too_much


def main(seconds: int, megabytes: int) -> None:
    """Run the other process: standard input to standard output."""
    _limit(seconds, megabytes)
    from agiqa.data.image_formats import read_picture
    from agiqa.data.image_formats.loading import unpack, why_not

    try:
        rgb = unpack(read_picture(sys.stdin.buffer.read()))
        sys.stdout.buffer.write(DONE + struct.pack("<II", *rgb.size))
        sys.stdout.buffer.write(rgb.tobytes())
    except Exception as error:  # whatever decoders raise on damage
        if isinstance(error, MemoryError) or "out of memory" in str(error):
            return  # as if the kernel had ended it
        sys.stdout.buffer.write(REFUSED + why_not(error).encode())


def _limit(seconds: int, megabytes: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows, where the clock alone holds
        return
    for kind, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_DATA, megabytes << 20),
        (resource.RLIMIT_CORE, 0),
    ):
        _, allowed = resource.getrlimit(kind)  # the process that asks may have limits of its own
        if allowed != resource.RLIM_INFINITY:
            most = min(most, allowed)
        resource.setrlimit(kind, (most, most))
