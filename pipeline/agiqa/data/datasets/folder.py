"""A folder of the user's own images without labels: for scoring, not for training.

All images below the folder, sorted by path. Hidden files and folders (a leading dot) are passed
over, and so is every file whose name does not end like an image's.
"""

import os
from pathlib import Path

import pandas as pd

from agiqa.core.errors import AgiqaError, printable
from agiqa.data.datasets.build import build_table
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import IMAGE_SUFFIXES


def prepare(
    folder: Path,
    name: str | None = None,
    *,
    skip_bad: bool = False,
    workers: int | None = None,
) -> ImagesTable:
    """List a folder's images; the table has no targets, no prompts and no groups."""
    paths = [path.relative_to(folder).as_posix() for path in find_images(folder)]
    # As objects: pandas' own text, in Arrow's memory, takes no name that is not UTF-8.
    rows = pd.DataFrame({"path": pd.Series(paths, dtype=object)})
    return build_table(
        name or folder.resolve().name or "folder",
        folder,
        rows,
        licence="the owner's own",
        source=folder.resolve().name,
        skip_bad=skip_bad,
        workers=workers,
    )


def find_images(folder: Path) -> list[Path]:
    """List the image files below a folder, sorted by path, broken links among them.

    Raises:
        AgiqaError: the folder is missing or holds no image, or one below it cannot be read.
    """
    if not folder.is_dir():
        raise AgiqaError(f"{folder}: expected a folder of images, found none")
    images = []
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images += [
            Path(parent, name)
            for name in files
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
        ]
    if not images:
        raise AgiqaError(
            f"{folder}: expected images ({' '.join(IMAGE_SUFFIXES)}) in it or below, found none"
        )
    return sorted(images, key=lambda path: path.relative_to(folder).as_posix())


def _refuse(error: OSError) -> None:
    """Refuse a folder that cannot be listed: its images would be left out without a word."""
    raise AgiqaError(
        f"{printable(error.filename)}: expected a folder of images, but it cannot be read "
        f"({error.strerror})"
    ) from error
