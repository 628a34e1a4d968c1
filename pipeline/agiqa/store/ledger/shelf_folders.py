"""Where ledgers lie, shelves in them, and what a shelf's folder says that its rows are.

`Shelf.open` starts from a fingerprint and finds the folder; listings, checks and merges start from
the folder and find the fingerprint in its fingerprint.json. The folder's name holds the digest of
the fingerprint, so a changed one is noticed.
"""

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from agiqa.core.errors import AgiqaError
from agiqa.core.urls import folder_name, is_url
from agiqa.core.whole_files import write_file
from agiqa.store.durable import disk_errors
from agiqa.store.fingerprint import Fingerprint, digest, plain, require_same
from agiqa.store.ledger.segments import LONGEST_HEADER, Kind, LocalSegments, described
from agiqa.store.own_files import read_own, spelled_json
from agiqa.store.rows import DTYPES, WIDEST

SHORT = 16  # digits of the digest in a shelf's name
PIXELS = "pixels.u8"  # of decoded images, which lie beside shelves (stage2/paper/inputs.py)
DESCRIPTION = "fingerprint.json"
FORMAT, LAYOUT = "agiqa-ledger", 2
LAYOUTS = (1, LAYOUT)  # 1: in buckets, where segments are as old as that
MOST_BYTES = 1 << 20
_REPAIR = (
    "`agiqa cache verify --repair` writes it anew from a pack, a run or the settings that have the "
    "fingerprint; or restore the file, or move the folder away"
)


def default_root() -> Path:
    """The ledger's folder: $AGIQA_STORE, or `ledger` in the user's cache folder.

    Where $AGIQA_STORE is a URL (../shared/sharing.py), a folder for it in the user's cache folder.
    """
    if url := default_url():
        return platformdirs.user_cache_path("agiqa") / "shared" / folder_name(url)
    if folder := os.environ.get("AGIQA_STORE"):
        return Path(folder).expanduser()
    return own_root()


def own_root() -> Path:
    """The ledger's folder where nothing else is said."""
    return platformdirs.user_cache_path("agiqa") / "ledger"


def other_shelves(shelf: Path) -> list[Path]:
    """Where the shelf would lie in the user's other ledgers: the own one, and those for URLs."""
    shared = sorted(platformdirs.user_cache_path("agiqa").glob("shared/*"))
    folders = [root / shelf.name for root in (own_root(), *shared)]
    return [folder for folder in folders if folder.resolve() != shelf.resolve()]


def default_url() -> str | None:
    """The URL of the shared ledger, where $AGIQA_STORE is one."""
    store = os.environ.get("AGIQA_STORE", "")
    return store.rstrip("/") if is_url(store) else None


def shelf_folder(root: Path, fingerprint: Fingerprint) -> Path:
    """Where the shelf of `fingerprint` lies under `root`, whether it is there or not."""
    name = re.sub(r"[^A-Za-z0-9._]+", "-", str(fingerprint.get("extractor", "vectors")))
    return root / f"{name.strip('-.') or 'vectors'}-{digest(fingerprint)[:SHORT]}"


def find_shelves(root: Path) -> list[Path]:
    """The folders under `root`, in order: shelves, and whatever else was put there.

    Hidden ones are left out: a shelf that is being made lies in one.
    """
    if not root.exists():
        return []
    with disk_errors("read", root):
        return sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")


class LostDescriptionError(AgiqaError):
    """A shelf of which nobody knows what its rows are, until its description is written anew.

    It is lost, damaged, or says another fingerprint than the folder's name.
    """


@dataclass(frozen=True)
class Description:
    """What one shelf holds: its fingerprint, width and dtype."""

    fingerprint: Fingerprint
    width: int
    dtype: str

    @property
    def kind(self) -> Kind:
        """Give what its segments have in common."""
        return Kind(digest(self.fingerprint), self.width, self.dtype)

    def text(self) -> str:
        """Write the description as the file has it."""
        return json.dumps(self.tree(), indent=2) + "\n"

    def tree(self) -> dict[str, object]:
        """Give the description as JSON values."""
        return {
            "format": FORMAT,
            "layout": LAYOUT,
            "width": self.width,
            "dtype": self.dtype,
            "fingerprint": plain(self.fingerprint),
        }


def read_description(folder: Path) -> Description:
    """What the shelf in `folder` holds.

    LostDescriptionError where the file is lost or damaged, segments are of another width or dtype
    under the same fingerprint, or it does not belong to the folder's name; AgiqaError where it is
    of another program or a newer layout.
    """
    description = stated_in(folder)
    if not is_of(folder, description.fingerprint):
        raise LostDescriptionError(
            f"{folder / DESCRIPTION}: expected the fingerprint that the folder is named after, "
            f"found that of *-{digest(description.fingerprint)[:SHORT]}; give the folder its name "
            "back, or restore the file, or move the folder away"
        )
    return description


def stated_in(folder: Path) -> Description:
    """What the description in `folder` says, whatever the folder is called; errors likewise."""
    path = folder / DESCRIPTION
    try:
        with disk_errors("read", path), suppress(FileNotFoundError, NotADirectoryError):
            description = parse_description(read_own(path, MOST_BYTES), str(path))
            wanted, kind = description.kind, kind_of(folder)
            if kind is not None and kind != wanted and kind.digest == wanted.digest:
                # Nothing vouches for the two in a description: as they are, all rows were lost.
                raise ValueError(
                    f"says width {wanted.width}, {wanted.dtype}, but the vectors are of width "
                    f"{kind.width}, {kind.dtype}"
                )
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
    for field, wanted, allowed in (("format", FORMAT, (FORMAT,)), ("layout", LAYOUT, LAYOUTS)):
        if tree.get(field) not in allowed or type(tree[field]) is not type(wanted):
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


def require_same_shelf(description: Description, wanted: Description, *, where: str) -> None:
    """AgiqaError unless the description of the shelf `where` says what is wanted."""
    advice = "choose another store (AGIQA_STORE), or move this one away"
    require_same(wanted.tree(), description.tree(), where=where, advice=advice)


def kind_of(folder: Path) -> Kind | None:
    """What the headers of a shelf's segments say that it is; None where none of three says it."""
    segments = LocalSegments(folder)
    for name in sorted(segments.sizes())[:3]:
        (head,) = segments.read_parts([(name, 0, LONGEST_HEADER + 8)])
        if head is not None and (kind := described(head)) is not None:
            return kind
    return None


def restore_description(
    folder: Path, fingerprint: Fingerprint, wanted: Description | None = None
) -> bool:
    """Write a lost or damaged fingerprint.json anew, if the folder is named for this fingerprint.

    Width and dtype are those that segments say, or without any those `wanted`. False where it is
    another's, or nothing tells the width; then nothing is changed.
    """
    if not is_of(folder, fingerprint):
        return False
    kind = kind_of(folder) or (wanted.kind if wanted else None)
    if kind is None or kind.digest != digest(fingerprint):
        return False
    text = Description(fingerprint, kind.width, kind.dtype).text()
    with disk_errors("restore", folder / DESCRIPTION):
        write_file(folder / DESCRIPTION, text.encode())
    return True


def is_layout_1(folder: Path) -> bool:
    """Whether the folder holds a shelf as agiqa kept them before segments (layout1.py)."""
    return all(os.path.lexists(folder / name) for name in ("journal.jsonl", "vectors"))


def require_no_layout_1(folder: Path) -> None:
    """AgiqaError, which says what to do, where a shelf of an earlier agiqa lies in `folder`."""
    if is_layout_1(folder):
        root = folder.parent
        raise AgiqaError(
            f"{folder}: expected segments, found rows as earlier versions of agiqa kept them "
            f"(layout 1); take them over: mv {root} {root}-1 && agiqa cache merge {root}-1"
        )
