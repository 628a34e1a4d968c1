"""What clients send: hashed, and kept under names of our own for as long as it is looked at.

A client's file name is for display only; no path is made of it. The folder is the server's own,
readable by its owner alone, and goes when the server ends; each file goes as soon as it is
answered.
"""

import hashlib
import shutil
import unicodedata
import uuid
from pathlib import Path
from typing import BinaryIO

NAME_LENGTH = 255
BLOCK = 1 << 20  # bytes read at a time
HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # categories of letters that move the others


def shown_name(name: str | None) -> str:
    """A client's file name, fit to be shown: its last part, without control characters."""
    last = (name or "").replace("\\", "/").rstrip("/").rpartition("/")[2][:NAME_LENGTH]
    plain = "".join("�" if unicodedata.category(letter) in HIDDEN else letter for letter in last)
    return plain or "unnamed"


def digest(file: BinaryIO) -> str:
    """The sha256 of the file's bytes, as `agiqa.data.images.image_id`."""
    file.seek(0)
    whole = hashlib.sha256()
    while block := file.read(BLOCK):
        whole.update(block)
    return whole.hexdigest()


def new_path(folder: Path) -> Path:
    """Where an upload is kept in that folder."""
    return folder / uuid.uuid4().hex


def keep(file: BinaryIO, path: Path) -> None:
    """Copy the file there."""
    file.seek(0)
    with path.open("xb") as copy:
        shutil.copyfileobj(file, copy, BLOCK)
