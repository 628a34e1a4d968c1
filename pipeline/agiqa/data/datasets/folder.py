"""A folder of the user's own images without labels: for scoring, not for training.

All images below the folder, sorted by path. Hidden files and folders (a leading dot) are passed
over, and so is every file whose name does not end like an image's. Linked folders are not followed,
which a line says.
"""

import logging
import os
from pathlib import Path

import pandas as pd

from agiqa.core.errors import AgiqaError, printable, some
from agiqa.data.datasets.table import ImagesTable, build_table
from agiqa.data.images import IMAGE_SUFFIXES

log = logging.getLogger(__name__)


def prepare(
    folder: Path, name: str | None = None, *, skip_bad: bool = False, workers: int | None = None
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
    images = [path for path in visible_files(folder) if Path(path).suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise AgiqaError(
            f"{folder}: expected images ({' '.join(IMAGE_SUFFIXES)}) in it or below, found none"
        )
    return [Path(path) for path in images]


def visible_files(folder: Path) -> list[str]:
    """List the files below a folder, sorted by path; a line says which linked folders are not read.

    Raises:
        AgiqaError: the folder is missing, or one below it cannot be read.
    """
    if not folder.is_dir():
        raise AgiqaError(f"{folder}: expected a folder of images, found none")
    files, links = list[str](), list[str]()
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links += [str(path) for name in folders if (path := Path(parent, name)).is_symlink()]
        files += [str(Path(parent, name)) for name in names if not name.startswith(".")]
    if links:
        log.warning(
            "%s: linked folders are not read (%s): name them, too, to have their images",
            printable(folder),
            some([printable(link) for link in sorted(links)], 3),
        )
    return sorted(files)


def _refuse(error: OSError) -> None:
    """Refuse a folder that cannot be listed: its images would be left out without a word."""
    raise AgiqaError(
        f"{printable(error.filename)}: expected a folder of images, but it cannot be read "
        f"({error.strerror})"
    ) from error
