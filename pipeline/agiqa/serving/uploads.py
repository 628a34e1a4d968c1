"""What clients send: hashed, checked by the strict decoder, kept under names of our own.

A client's file name is for display only; no path is made of it. The folder is the server's own,
readable by its owner alone, and goes when the server ends; each file goes as soon as it is
answered.
"""

import hashlib
import shutil
import unicodedata
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from agiqa.images import ImageError, decode, image_id

NAME_LENGTH = 255
BLOCK = 1 << 20  # bytes read at a time


@dataclass(frozen=True)
class Refused:
    """A file that cannot be scored, and why, in plain words."""

    reason: str


@dataclass(frozen=True)
class Kept:
    """A file that decodes, by its sha256."""

    image_id: str
    path: Path


def shown_name(name: str | None) -> str:
    """A client's file name, fit to be shown: its last part, without control characters."""
    last = (name or "").replace("\\", "/").rstrip("/").rpartition("/")[2]
    plain = "".join(
        "�" if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn") else letter
        for letter in last
    )
    return plain[:NAME_LENGTH] or "unnamed"


def digest(file: BinaryIO) -> str:
    """The sha256 of the file's bytes, as `agiqa.images.image_id`."""
    file.seek(0)
    found = hashlib.sha256()
    while block := file.read(BLOCK):
        found.update(block)
    return found.hexdigest()


def keep(file: BinaryIO, folder: Path) -> Kept | Refused:
    """Copy the file into the folder and decode it once, in full.

    The caller removes what was kept.
    """
    path = folder / uuid.uuid4().hex
    file.seek(0)
    try:
        with path.open("xb") as copy:
            shutil.copyfileobj(file, copy)
        decode(path)
    except ImageError as error:
        path.unlink(missing_ok=True)
        return Refused(error.reason)
    except OSError as error:
        path.unlink(missing_ok=True)
        return Refused(f"cannot be kept for scoring: {error.strerror}")
    return Kept(digest(file), path)


def check(path: Path) -> Kept | Refused:
    """A file of the operator's own, where it is."""
    try:
        decode(path)
        return Kept(image_id(path), path)
    except ImageError as error:
        return Refused(error.reason)
