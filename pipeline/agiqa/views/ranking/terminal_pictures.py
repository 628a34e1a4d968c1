"""Thumbnails on the terminal, where it can show them.

By kitty's graphics protocol, by sixel (iTerm2, WezTerm, foot, xterm and others), or in half blocks
where they are asked for. The terminal is asked what it can do, for a tenth of a second at most,
and only where both its ends are ours: a process in the background would be stopped by it.
"""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agiqa.core.errors import AgiqaError

if TYPE_CHECKING:
    from agiqa.views.ranking.terminal import Picture

ROWS = 3  # of a thumbnail, and twice as many columns
SIDE = 192  # pixels that are handed over: the protocols send a picture's every pixel
MODES = ("auto", "always", "never")


def pictures(mode: str) -> "Picture | None":
    """What draws a file's thumbnail on this terminal, or None.

    Args:
        mode: `auto` draws where the terminal can show pictures and colour is not refused
            (NO_COLOR), `always` in half blocks elsewhere, `never` does not.

    Raises:
        AgiqaError: `always` without a terminal, or without textual-image (extra `terminal`).
    """
    if mode == "never" or (mode == "auto" and os.environ.get("NO_COLOR")):
        return None
    if not _is_ours():
        if mode == "always":
            raise AgiqaError(
                "--thumbnails always: expected a terminal on standard input and output, found "
                "none: leave the option out, or write a page with --html FILE."
            )
        return None
    logging.getLogger("textual_image").setLevel(logging.ERROR)  # a guess at a cell's size is fine
    from rich.padding import Padding

    try:
        from textual_image import renderable  # asks the terminal
    except ImportError:
        if mode == "always":
            raise AgiqaError(
                "--thumbnails always needs the terminal extra: pip install 'agiqa[terminal]'."
            ) from None
        return None
    drawn: Any = renderable.Image
    if drawn is renderable.HalfcellImage and mode == "auto":
        return None

    def picture(path: Path) -> Any:
        thumbnail = drawn(_small(path), width="auto", height=ROWS)
        below = drawn is not renderable.SixelImage  # which leaves a line free by itself
        return Padding(thumbnail, (0, 0, int(below), 0))

    return picture


def _is_ours() -> bool:
    """Whether standard input and output are a terminal, and this process is in its foreground."""
    streams = (sys.__stdin__, sys.__stdout__)
    if not all(stream and stream.isatty() for stream in streams) or sys.stdout is not streams[1]:
        return False
    if os.environ.get("TERM") in ("dumb", "unknown"):
        return False
    return not hasattr(os, "tcgetpgrp") or os.tcgetpgrp(0) == os.getpgrp()


def _small(path: Path) -> Any:
    """The middle of the picture as a square, so that all take the same columns."""
    from PIL import Image, ImageOps

    from agiqa.data.images import decode

    return ImageOps.fit(decode(path), (SIDE, SIDE), Image.Resampling.LANCZOS)
