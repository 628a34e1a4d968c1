"""The ledger: shelves of vectors that outlive every experiment and every clean-up.

`extract` adds rows here and packs them from here; DVC never sees it. One shelf holds one vector of
one extractor (one fingerprint), its rows keyed by image id, under `default_root()`:

    <extractor>-<first 16 digits of the fingerprint's digest>/
        fingerprint.json                           layout, width, dtype, the whole fingerprint
        segments/<sha256>-<rows>.safetensors       rows (segments.py)
        writer.lock, owner.json                    who writes: a courtesy (lock.py)

A segment is written once, whole (temporary name, fsync, rename, fsync of the folder), and never
changed. What is there is valid: a row that fits its checksum, whichever process on whichever
machine wrote it; one that does not is absent, and its neighbours stay. A row that is there twice
does no harm. So there is nothing to agree about: no journal, no order, no lock that anything rests
on. Small segments are merged into large ones (segment_rows.py), and a segment is removed only when
all its rows lie durably in a greater one. To merge two ledgers, to share one or to keep a copy is
to copy files.

`Shelf.open` starts from a fingerprint and finds the folder; listings, checks and merges start from
the folder and find the fingerprint in its fingerprint.json. The folder's name holds the digest of
the fingerprint, so a changed one is noticed.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs

from agiqa.core.errors import AgiqaError
from agiqa.core.urls import folder_name, is_url
from agiqa.core.whole_files import PARTIAL, sync_folder, write_file
from agiqa.store.files import disk_errors, folder_aside, read_own, spelled_json, sync_tree
from agiqa.store.fingerprint import Fingerprint, digest, plain, require_same
from agiqa.store.ledger.lock import LOCK_NAMES, writer_lock
from agiqa.store.ledger.segment_rows import SegmentRows, merge_small
from agiqa.store.ledger.segments import (
    LONGEST_HEADER,
    SEGMENTS,
    Kind,
    LocalSegments,
    described,
    rows_a_segment,
    rows_of,
)
from agiqa.store.rows import DTYPES, WIDEST, DamagedRowsError, Vectors, check_vectors, id_bytes

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0  # an `add` this long after the last flush flushes; a kill loses no more
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

    Where $AGIQA_STORE is a URL (sharing.py), a folder for it in the user's cache folder.
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
        raise _lost(path, error) from error
    raise LostDescriptionError(
        f"{folder}: expected a shelf of the ledger, found no {DESCRIPTION} in it, which says what "
        f"its vectors are; {_REPAIR}"
    )


def parse_description(data: bytes, file: str) -> Description:
    """What the text of a shelf's description in `file` says; errors as `read_description`."""
    try:
        tree = spelled_json(data)
    except ValueError as error:
        raise _lost(file, error) from error
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
        raise _lost(file, f"lacks a fingerprint, a width up to {WIDEST:,}, or a dtype")
    return Description(fingerprint, width, dtype)


def is_of(folder: Path, fingerprint: Fingerprint) -> bool:
    """Whether a shelf's folder is named after this fingerprint."""
    return folder.resolve().name.endswith(f"-{digest(fingerprint)[:SHORT]}")


def _lost(file: str | Path, reason: object) -> LostDescriptionError:
    return LostDescriptionError(
        f"{file}: expected the shelf's description, found that it {reason}; {_REPAIR}"
    )


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


def strangers(folder: Path) -> list[Path]:
    """List what lies in a shelf's folder and is not agiqa's; hidden files are left alone."""
    with disk_errors("read", folder):
        foreign = [
            path
            for path in sorted(folder.iterdir())
            if path.name not in (DESCRIPTION, SEGMENTS)
            and not LOCK_NAMES.fullmatch(path.name)
            and not path.name.endswith(PARTIAL)
        ]
        inside = folder / SEGMENTS
        if inside.is_dir() and not inside.is_symlink():
            foreign += [path for path in sorted(inside.iterdir()) if not rows_of(path.name)]
    return [path for path in foreign if not path.name.startswith(".")]


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


class Shelf:
    """One vector of one extractor; any number of readers and writers.

    An object is not for use from several threads at once; each may have its own.
    """

    def __init__(self, folder: Path, described: Description, rank: int = 0) -> None:
        self.folder, self.described = folder, described
        self.fingerprint = described.fingerprint
        self.width, self.dtype = described.width, described.dtype
        self.rank = rank  # of the process that writes
        self.files = LocalSegments(folder)
        self.rows = SegmentRows(self.files, described.kind)

    @classmethod
    def open(
        cls, root: Path, fingerprint: Fingerprint, width: int, dtype: str = "float16", rank: int = 0
    ) -> Shelf:
        """Open the shelf of `fingerprint` under `root`, creating it where there is none.

        The folder's name starts with the fingerprint's "extractor" field, if it has one. `rank` is
        that of this process among several that write at once.
        AgiqaError where the shelf on disk is of another fingerprint, width, dtype or layout.
        """
        if dtype not in DTYPES or width < 1:
            raise AgiqaError(
                f"expected a width of at least 1 and dtype {' or '.join(DTYPES)}, "
                f"found {width} and {dtype}; correct the extractor"
            )
        folder = shelf_folder(root, fingerprint)
        wanted = Description(fingerprint, width, dtype)
        require_no_layout_1(folder)
        with disk_errors("open or create", folder):
            if not folder.exists():
                for path in find_shelves(root) if root.is_dir() else ():
                    require_no_layout_1(path)
                _lay_out(folder, wanted)
            try:
                stated = stated_in(folder)
            except LostDescriptionError:  # the folder's name vouches for the fingerprint
                if not restore_description(folder, fingerprint, wanted):
                    raise
                logger.warning(
                    "%s was lost or damaged and has been written anew", folder / DESCRIPTION
                )
                stated = stated_in(folder)
            require_same_shelf(stated, wanted, where=str(folder))
        return cls(folder, wanted, rank)

    @classmethod
    def at(cls, folder: Path) -> Shelf:
        """Open the shelf that lies in `folder`; nothing is created.

        AgiqaError where there is none, or its description is foreign, newer or damaged.
        """
        require_no_layout_1(folder)
        return cls(folder, read_description(folder))

    def ids(self) -> frozenset[str]:
        """The image ids of all rows, those added since by another process included."""
        return self.refreshed().ids()

    def refreshed(self) -> SegmentRows:
        """The rows, those added since by another process included; `id in rows` asks for one."""
        self.rows.refresh()
        return self.rows

    def read(self, ids: Sequence[str]) -> Vectors:
        """Read the rows of `ids`, in that order: (N, D). Every row is checked against its checksum.

        AgiqaError where a row was never added; DamagedRowsError where one cannot be read back.
        """
        vectors, damaged = self.refreshed().read(ids)
        if damaged:
            raise DamagedRowsError(
                f"{self.folder}: expected {len(ids)} whole rows, found {len(damaged)} damaged or "
                f"missing on disk (first: image {damaged[0]}); run `agiqa cache verify --repair`, "
                "then `agiqa extract`, which computes only what could not be saved",
                damaged,
            )
        return vectors

    def damaged(self, ids: Sequence[str] | None = None) -> tuple[str, ...]:
        """Check the rows of `ids`, or all; the image ids of those that cannot be read back."""
        rows = self.refreshed()
        checked_ids = sorted(rows.ids()) if ids is None else [name for name in ids if name in rows]
        whole_ids = {name for names, _ in rows.blocks(checked_ids) for name in names}
        return tuple(name for name in checked_ids if name not in whole_ids)

    def checksums(self) -> dict[str, int]:
        """The CRC-32 of each row by its id."""
        return self.refreshed().checksums()

    def blocks(self, wanted: Collection[str]) -> Iterator[tuple[Sequence[str], Vectors]]:
        """Whole rows of the wanted ids, (n, D) at a time, as they lie in the segments."""
        return self.rows.blocks(wanted)

    @contextmanager
    def writer(self, flush_seconds: float = FLUSH_SECONDS) -> Iterator[ShelfWriter]:
        """Write to this shelf; LockedError, within a second, names another writer of this rank.

        What was added is flushed at the end, also when the body fails or is interrupted.
        """
        with writer_lock(self.folder, self.rank):
            writer = ShelfWriter(self.refreshed(), flush_seconds)
            try:
                yield writer
            except BaseException:
                try:
                    writer.close()
                except AgiqaError as error:
                    logger.warning("%s", error)  # the body's own failure is the one to show
                raise
            writer.close()
            merge_small(self.rows)

    def merge(self) -> int:
        """Merge all small segments; how many went."""
        return merge_small(self.rows, everything=True)


class ShelfWriter:
    """Adds rows to a shelf, a segment for each flush. Not for use from several threads at once."""

    def __init__(self, rows: SegmentRows, flush_seconds: float) -> None:
        self.rows = rows
        self._flush_seconds = flush_seconds
        self._flushed_at = time.monotonic()
        self._closed = False
        kind = rows.kind
        self._waiting: dict[str, None] = {}  # ids of rows that are not on the disk yet, in order
        self._vectors = np.empty((rows_a_segment(kind), kind.width), kind.dtype)  # theirs, and room

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Add rows (n, D); ids already there, or repeated, are passed over: the first wins.

        Rows count only once flushed, which happens here when there are many or `flush_seconds`
        have passed since the last flush. AgiqaError for another width or dtype, and for NaN or
        infinity, naming the image; then none of these rows is added. After an AgiqaError for a
        failing disk the same call may be repeated.
        """
        if self._closed:
            raise RuntimeError("the shelf's writer is closed; rows are added inside its `with`")
        check_vectors(ids, vectors, (self.rows.kind.width,), self.rows.kind.dtype)
        id_bytes(ids)
        for row, row_id in enumerate(ids):
            if row_id not in self._waiting and row_id not in self.rows:
                if len(self._waiting) == len(self._vectors):
                    self.flush()
                self._vectors[len(self._waiting)] = vectors[row]
                self._waiting[row_id] = None
        is_full = len(self._waiting) == len(self._vectors)
        if is_full or time.monotonic() - self._flushed_at >= self._flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Write what was added: one segment, durable when this returns.

        AgiqaError where the disk refuses; rows written before are untouched, the others stay in
        memory for another try.
        """
        self._flushed_at = time.monotonic()
        if self._waiting:
            self.rows.add(list(self._waiting), self._vectors[: len(self._waiting)])
            self._waiting.clear()

    def close(self) -> None:
        """Flush, and take no more rows."""
        try:
            self.flush()
        finally:
            self._closed = True


def _lay_out(folder: Path, described: Description) -> None:
    """Make an empty shelf aside and move it to `folder`; another process may be first."""
    with folder_aside(folder) as aside:
        new = aside / "shelf"
        (new / SEGMENTS).mkdir(parents=True)
        (new / DESCRIPTION).write_text(described.text(), encoding="utf-8")
        sync_tree(new)
        try:
            new.rename(folder)
        except OSError:
            if not (folder / DESCRIPTION).exists():
                raise
        sync_folder(folder.parent)
