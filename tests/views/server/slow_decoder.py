"""The decoder's program, with pictures that do to it what their names say."""

import os
import signal
import time
from pathlib import Path

from PIL import Image

from agiqa.views.server import decoder


def decode(path: Path) -> Image.Image:
    """Do it."""
    if path.name == "busy":
        while True:
            pass
    if path.name == "large":
        bytearray(4 << 30)
    if path.name == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if path.name == "wait":
        path.with_name("pid").write_text(str(os.getpid()))
        time.sleep(1000)
    return Image.new("RGB", (64, 32), "red")


decoder.decode = decode  # type: ignore[attr-defined]
decoder.main()
