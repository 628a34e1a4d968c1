"""Small pictures for a page, as base64 WebP, made in threads."""

import base64
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from agiqa.data.images import ImageError, decode

# Images of a page: pixels of a thumbnail's longer side. A page stays below 30 MB: about 9, 4 and
# 1.7 KB a picture in base64.
SIDES = ((1_500, 256), (5_000, 160), (15_000, 96))
QUALITY = 62


def side_for(count: int) -> int:
    """Pixels of the longer side where a page shows that many pictures; 0: there are too many."""
    return next((side for most, side in SIDES if count <= most), 0)


def thumbnails(paths: Sequence[Path], side: int, workers: int | None = None) -> Iterator[str]:
    """The pictures in order, each as base64; empty where a file cannot be read any more."""

    def small(path: Path) -> str:
        try:
            image = decode(path)
        except ImageError:
            return ""
        image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
        file = io.BytesIO()
        image.save(file, "WEBP", quality=QUALITY, method=2)
        return base64.b64encode(file.getvalue()).decode("ascii")

    with ThreadPoolExecutor(workers, thread_name_prefix="thumbnails") as pool:
        yield from pool.map(small, paths)
