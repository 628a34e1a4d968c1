"""A shelf's fingerprint.json: what its rows are, read back from the folder alone.

`Shelf.open` starts from a fingerprint and finds the folder; listings, checks and merges start from
the folder and find the fingerprint here. The folder's name holds the digest of the fingerprint, so
a changed one is noticed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agiqa.errors import AgiqaError
from agiqa.feature_store.array_metadata import read_json
from agiqa.feature_store.chunks import DTYPES
from agiqa.feature_store.durable import disk_errors, write_file
from agiqa.feature_store.fingerprint import Fingerprint, digest, plain, require_same
from agiqa.trees import parse_json

DESCRIPTION = "fingerprint.json"
FORMAT, LAYOUT = "agiqa-ledger", 1
SHORT = 16  # digits of the digest in the folder's name


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

    AgiqaError where there is none, it is of another program or a newer layout, or does not belong
    to the folder's name.
    """
    path = folder / DESCRIPTION
    with disk_errors("read", path):
        if not path.is_file():
            raise AgiqaError(
                f"{folder}: expected a shelf of the ledger, found no {DESCRIPTION} in it; restore "
                "the file or move the folder away"
            )
        found, wrong = read_json(path)
    advice = "restore the file or move the folder away"
    if found is None:
        raise AgiqaError(
            f"{path}: expected the shelf's description, found one that {wrong}; {advice}"
        )
    if found.get("format") != FORMAT:
        raise AgiqaError(
            f"{path}: expected format {FORMAT!r}, found {found.get('format')!r}; {advice}"
        )
    if found.get("layout") != LAYOUT:
        newer = isinstance(found.get("layout"), int) and found["layout"] > LAYOUT
        raise AgiqaError(
            f"{path}: expected layout {LAYOUT}, found {found.get('layout')!r}; "
            f"{'upgrade agiqa' if newer else advice}"
        )
    fingerprint, width, dtype = (found.get(key) for key in ("fingerprint", "width", "dtype"))
    fields = {"format", "layout", "width", "dtype", "fingerprint"}
    sound = isinstance(fingerprint, dict) and type(width) is int and width > 0
    if not sound or dtype not in DTYPES or set(found) != fields:
        raise AgiqaError(
            f"{path}: expected a fingerprint, a width and a dtype, found other fields or values; "
            f"{advice}"
        )
    assert isinstance(fingerprint, dict)
    assert isinstance(width, int)
    if not folder.resolve().name.endswith(f"-{digest(fingerprint)[:SHORT]}"):
        raise AgiqaError(
            f"{path}: expected the fingerprint that the folder is named after, found that of "
            f"*-{digest(fingerprint)[:SHORT]}; {advice}"
        )
    return Description(fingerprint, width, str(dtype))


def require_description(folder: Path, wanted: Description) -> None:
    """AgiqaError unless the shelf in `folder` holds what is wanted, naming the field."""
    path = folder / DESCRIPTION
    require_text(path.read_bytes(), wanted, file=str(path), where=str(folder))


def require_text(text: bytes, wanted: Description, *, file: str, where: str) -> None:
    """AgiqaError unless `text`, found in `file` of the shelf `where`, says what is wanted."""
    try:
        found = parse_json(text)
        layout = int(found["layout"])
    except (ValueError, KeyError, TypeError) as error:
        raise AgiqaError(
            f"{file}: expected the shelf's description, found {type(error).__name__}; "
            "restore the file or move the folder away"
        ) from error
    if layout > LAYOUT:
        raise AgiqaError(
            f"{file}: expected layout {LAYOUT}, found the newer {layout}; upgrade agiqa"
        )
    advice = "choose another store (AGIQA_STORE), or move this one away"
    require_same(wanted.tree(), found, where=where, advice=advice)


def restore_description(folder: Path, candidates: Iterable[Fingerprint]) -> bool:
    """Write a damaged fingerprint.json anew, from whichever candidate the folder is named after.

    Width and dtype are those of the folder's array. False where no candidate fits, or the array's
    metadata is damaged as well; then nothing is changed.
    """
    array, _ = read_json(folder / "vectors" / "zarr.json")
    shape, dtype = (array or {}).get("shape"), (array or {}).get("data_type")
    if not isinstance(shape, list) or len(shape) != 2 or dtype not in DTYPES:
        return False
    for fingerprint in candidates:
        if folder.resolve().name.endswith(f"-{digest(fingerprint)[:SHORT]}"):
            text = Description(fingerprint, int(shape[1]), str(dtype)).text()
            with disk_errors("restore", folder / DESCRIPTION):
                write_file(folder / DESCRIPTION, text.encode())
            return True
    return False
