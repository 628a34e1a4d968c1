"""A folder of the user's own images without labels: for scoring, not for training.

All images below the folder, sorted by path. Hidden files and folders (a leading dot) are passed
over, and so is every file whose name does not end like an image's.
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from agiqa.datasets.build import build_table
from agiqa.datasets.table import ImagesTable
from agiqa.errors import AgiqaError
from agiqa.images import IMAGE_SUFFIXES


def prepare(
    folder: Path,
    name: str | None = None,
    *,
    skip_bad: bool = False,
    workers: int | None = None,
    on_progress: Callable[[int, int], object] | None = None,
) -> ImagesTable:
    """List a folder's images; the table has no targets, no prompts and no groups."""
    paths = [path.relative_to(folder).as_posix() for path in find_images(folder)]
    rows = pd.DataFrame({"path": paths}, dtype=str).assign(prompt="", group="", generator="")
    return build_table(
        name or folder.resolve().name or "folder",
        folder,
        rows,
        licence="the owner's own",
        source=folder.resolve().name,
        skip_bad=skip_bad,
        workers=workers,
        on_progress=on_progress,
    )


def find_images(folder: Path) -> list[Path]:
    """The image files below a folder, sorted by path; broken links among them are kept.

    Raises:
        AgiqaError: the folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise AgiqaError(f"{folder}: expected a folder of images, found none")
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not found:
        raise AgiqaError(
            f"{folder}: expected images ({' '.join(IMAGE_SUFFIXES)}) in it or below, found none"
        )
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())
