"""Image files as small WebP pictures inside a page, as sharp as the page's size allows.

A page has some megabytes for pictures. On a sample it is measured what each side length costs, and
the largest that fits is taken for all; some may be kept larger. The page decodes a picture only
when it is shown.
"""

import base64
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from agiqa.core.progress import track
from agiqa.data.images import ImageError, decode

SIDES = (160, 128, 112, 96, 80, 72, 64, 56, 48, 40)  # pixels of the longer side
LARGE = 320  # of those that a page opens with
QUALITY = 60  # WebP
SAMPLE = 40  # images whose sizes are measured
IN_BASE64 = 4 / 3 * 1.01  # bytes in the page for a byte of WebP, with quotes and commas
TOO_MANY = "is left out: the page would be too large"


@dataclass(frozen=True)
class Thumbnails:
    """Thumbnails by the image's row in the page; "" or absent where there is none."""

    side: int  # pixels of the longer side; 0 without pictures
    small: list[str]  # base64 of WebP
    large: dict[int, str]  # the same, larger, of some
    problems: dict[int, str]  # why there is none


def make_pictures(
    files: Sequence[Path | str],
    budget: int,
    important: Sequence[int],
    large: Sequence[int] = (),
    label: str = "Thumbnails",
    sides: Sequence[int] = SIDES,
) -> Thumbnails:
    """Read the files once and make their pictures.

    Args:
        files: by row; a str instead of a path says why there is no file.
        budget: bytes that all of them may take in the page.
        important: rows, the most important first: what is kept where not even the smallest
            pictures of all fit.
        large: rows that are shown larger.
        label: what is being made, for the progress bar.
        sides: pixels of the longer side to choose from, falling.
    """
    problems = {row: file for row, file in enumerate(files) if isinstance(file, str)}
    paths = {row: file for row, file in enumerate(files) if isinstance(file, Path)}
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="thumbnails") as pool:
        side, cost = _largest_side(pool, list(paths.values()), budget, sides)
        if side == sides[-1] and cost * len(paths) > budget:
            kept_rows = set([row for row in important if row in paths][: int(budget / cost)])
            problems |= dict.fromkeys(set(paths) - kept_rows, TOO_MANY)
            paths = {row: path for row, path in paths.items() if row in kept_rows}
        large_rows, rows = set(large) if side < LARGE else set(), sorted(paths)
        wanted = [(side, LARGE) if row in large_rows else (side,) for row in rows]
        results = pool.map(_webps, [paths[row] for row in rows], wanted)
        small, larger = [b""] * len(files), {}
        for row, made in zip(rows, track(results, label, total=len(rows)), strict=True):
            if isinstance(made, str):
                problems[row] = made
                continue
            small[row] = made[0]
            if len(made) > 1:
                larger[row] = made[1]
        while sum(map(len, small)) * IN_BASE64 > budget and side > sides[-1]:
            side = sides[sides.index(side) + 1]  # the sample was too kind
            small = list(pool.map(partial(_smaller, side=side), small))
    return Thumbnails(
        side if paths else 0,
        [_base64(picture) for picture in small],
        {row: _base64(picture) for row, picture in larger.items()},
        dict(sorted(problems.items())),
    )


def webp(image: Image.Image, side: int) -> bytes:
    """The image as WebP, shrunk where it is larger, its aspect kept."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    file = io.BytesIO()
    small.save(file, "WEBP", quality=QUALITY)
    return file.getvalue()


def _largest_side(
    pool: ThreadPoolExecutor, files: Sequence[Path], budget: int, sides: Sequence[int]
) -> tuple[int, float]:
    """The largest side whose pictures fit, and what one takes in the page."""
    indices = np.unique(np.linspace(0, len(files) - 1, min(SAMPLE, len(files))).astype(int))
    made = pool.map(partial(_webps, sides=sides), [files[index] for index in indices])
    sizes = [list(map(len, pictures)) for pictures in made if not isinstance(pictures, str)]
    if not sizes:
        return sides[0], 1.0
    costs = np.mean(sizes, axis=0) * IN_BASE64
    for side, cost in zip(sides, costs, strict=True):
        if cost * len(files) <= 0.97 * budget:
            return side, float(cost)
    return sides[-1], float(costs[-1])


def _webps(path: Path, sides: Sequence[int]) -> list[bytes] | str:
    """The picture at each side, or why there is none."""
    try:
        image = decode(path)
    except ImageError as error:
        return error.reason
    return [webp(image, side) for side in sides]


def _smaller(picture: bytes, side: int) -> bytes:
    return webp(decode(picture), side) if picture else b""


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
