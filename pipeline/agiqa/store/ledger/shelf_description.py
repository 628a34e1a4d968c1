"""A shelf's fingerprint.json: what its rows are, read back from the folder alone.

`Shelf.open` starts from a fingerprint and finds the folder; listings, checks and merges start from
the folder and find the fingerprint here. The folder's name holds the digest of the fingerprint, so
a changed one is noticed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.store.array_metadata import read_json, spelled_json
from agiqa.store.chunks import DTYPES, ROWS_A_CHUNK, WIDEST
from agiqa.store.durable import disk_errors, write_file
from agiqa.store.fingerprint import Fingerprint, digest, plain, require_same
from agiqa.store.own_files import read_own

DESCRIPTION = "fingerprint.json"
FORMAT, LAYOUT = "agiqa-ledger", 1
SHORT = 16  # digits of the digest in the folder's name
MOST_BYTES = 1 << 20
_REPAIR = (
    "`agiqa cache verify --repair` writes it anew from a pack, a run or the settings that have the "
    "fingerprint; or restore the file, or move the folder away"
)


class LostDescriptionError(AgiqaError):
    """A shelf of which nobody knows what its rows are, until its description is written anew."""


class MisnamedShelfError(AgiqaError):
    """A shelf whose description says another fingerprint than the folder's name."""


@dataclass(frozen=True)
class Description:
    """What one shelf holds."""

    fingerprint: Fingerprint
    width: int
    dtype: str

    def text(self) -> str:
        """As the file has it."""
        return json.dumps(self.tree(), indent=2) + "\n"

    def tree(self) -> dict[str, object]:
        """As JSON values."""
        return {
            "format": FORMAT,
            "layout": LAYOUT,
            "width": self.width,
            "dtype": self.dtype,
            "fingerprint": plain(self.fingerprint),
        }


def read_description(folder: Path) -> Description:
    """What the shelf in `folder` holds.

    LostDescriptionError where the file is lost or damaged, MisnamedShelfError where it does not
    belong to the folder's name; AgiqaError where it is of another program or a newer layout.
    """
    description = _read(folder)
    if not is_of(folder, description.fingerprint):
        raise MisnamedShelfError(
            f"{folder / DESCRIPTION}: expected the fingerprint that the folder is named after, "
            f"found that of *-{digest(description.fingerprint)[:SHORT]}; give the folder its name "
            "back, or restore the file, or move the folder away"
        )
    return description


def _read(folder: Path) -> Description:
    path = folder / DESCRIPTION
    try:
        with disk_errors("read", path), suppress(FileNotFoundError, NotADirectoryError):
            description = parse_description(read_own(path, MOST_BYTES), str(path))
            if wrong := contradiction(folder, description):
                raise ValueError(wrong)
            return description
    except ValueError as error:
        raise LostDescriptionError(_lost(str(path), str(error))) from error
    raise LostDescriptionError(
        f"{folder}: expected a shelf of the ledger, found no {DESCRIPTION} in it, which says what "
        f"its vectors are; {_REPAIR}"
    )


def parse_description(data: bytes, file: str) -> Description:
    """What the text of a shelf's description in `file` says; errors as `read_description`."""
    try:
        tree = spelled_json(data)
    except ValueError as error:
        raise LostDescriptionError(_lost(file, str(error))) from error
    for field, wanted in (("format", FORMAT), ("layout", LAYOUT)):
        if tree.get(field) != wanted or type(tree[field]) is not type(wanted):
            newer = field == "layout" and type(tree.get(field)) is int and tree[field] > LAYOUT
            raise AgiqaError(
                f"{file}: expected {field} {wanted!r}, found {repr(tree.get(field))[:80]}; "
                f"{'upgrade agiqa' if newer else 'restore the file or move the folder away'}"
            )
    fingerprint, width, dtype = (tree.get(key) for key in ("fingerprint", "width", "dtype"))
    if (
        not isinstance(fingerprint, dict)
        or type(width) is not int
        or not 1 <= width <= WIDEST
        or dtype not in list(DTYPES)
        or set(tree) != {"format", "layout", "width", "dtype", "fingerprint"}
    ):
        raise LostDescriptionError(
            _lost(file, f"lacks a fingerprint, a width up to {WIDEST:,}, or a dtype")
        )
    return Description(fingerprint, width, dtype)


def is_of(folder: Path, fingerprint: Fingerprint) -> bool:
    """Whether a shelf's folder is named after this fingerprint."""
    return folder.resolve().name.endswith(f"-{digest(fingerprint)[:SHORT]}")


def _lost(file: str, reason: str) -> str:
    return f"{file}: expected the shelf's description, found that it {reason}; {_REPAIR}"


def require_description(folder: Path, wanted: Description) -> None:
    """AgiqaError unless the shelf in `folder` holds what is wanted, naming the field."""
    require_same_shelf(_read(folder), wanted, where=str(folder))


def require_same_shelf(description: Description, wanted: Description, *, where: str) -> None:
    """AgiqaError unless the description of the shelf `where` says what is wanted."""
    advice = "choose another store (AGIQA_STORE), or move this one away"
    require_same(wanted.tree(), description.tree(), where=where, advice=advice)


def array_of(folder: Path) -> tuple[int, str] | None:
    """Width and dtype that the array's metadata says, if it can be read."""
    array, _ = read_json(folder / "vectors" / "zarr.json")
    shape, dtype = (array or {}).get("shape"), (array or {}).get("data_type")
    if not isinstance(shape, list) or len(shape) != 2 or dtype not in list(DTYPES):
        return None
    return (shape[1], dtype) if type(shape[1]) is int and 1 <= shape[1] <= WIDEST else None


def contradiction(folder: Path, description: Description) -> str | None:
    """Where the array is of another width or dtype, and its chunks' sizes say that it is right.

    Nothing vouches for these two in a description. Taken as they are, every row would be bad.
    """
    array = array_of(folder)
    if array in (None, (description.width, description.dtype)):
        return None
    sizes = {path.lstat().st_size for path in folder.glob("vectors/c.*.0")}

    def fits(width: int, dtype: str) -> bool:
        return ROWS_A_CHUNK * width * np.dtype(dtype).itemsize + 4 in sizes

    assert array is not None
    if fits(*array) and not fits(description.width, description.dtype):
        said = f"width {description.width}, {description.dtype}"
        return f"says {said}, but the vectors are of width {array[0]}, {array[1]}"
    return None


def restore_description(folder: Path, candidates: Iterable[Fingerprint]) -> bool:
    """Write a lost or damaged fingerprint.json anew, of the candidate that the folder is named for.

    Width and dtype are those of the folder's array. False where no candidate fits, or the array's
    metadata is damaged as well; then nothing is changed.
    """
    array = array_of(folder)
    for fingerprint in candidates:
        if array and is_of(folder, fingerprint):
            text = Description(fingerprint, *array).text()
            with disk_errors("restore", folder / DESCRIPTION):
                write_file(folder / DESCRIPTION, text.encode())
            return True
    return False
