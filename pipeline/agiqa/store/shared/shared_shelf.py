"""A shelf of this machine's ledger and its folder at a URL: rows pulled from there, and pushed.

    <url>/<the shelf's name>/fingerprint.json             as in the ledger
    <url>/<the shelf's name>/segments/<…>.safetensors     rows (segments.py)

Segments are written once and never changed, and their names are their checksums: any number of
machines write at once without a lock. Where two computed the same row, both are there, and either
serves. The ledger here stays the truth about what has been computed; pulled rows have a section of
their own in it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from agiqa.core.urls import shown
from agiqa.store.chunks import DamagedRowsError, Vectors
from agiqa.store.fingerprint import digest
from agiqa.store.ledger.shelf import Shelf, own_root
from agiqa.store.ledger.shelf_description import (
    DESCRIPTION,
    MOST_BYTES,
    Description,
    parse_description,
    require_same_shelf,
)
from agiqa.store.ledger.shelf_writer import ShelfWriter
from agiqa.store.shared.remote import Remote
from agiqa.store.shared.segments import (
    ID_BYTES,
    ROWS_A_SEGMENT,
    SegmentError,
    build,
    ids_of,
    is_plausible,
    parse,
    rows_of,
)

logger = logging.getLogger(__name__)

PULLED = 1_000_000  # sections from here on hold rows from elsewhere, one for each rank
AT_ONCE = 4  # segments in flight: bounds the memory, 128 MiB at 4096 float16


class SharedShelf:
    """One shelf, here and at a URL. Not for use from several threads at once."""

    def __init__(self, shelf: Shelf, url: str) -> None:
        """Take a shelf; `url` is the shared ledger's."""
        root, section = shelf.folder.parent, PULLED + shelf.section
        self.shelf = Shelf.open(root, shelf.fingerprint, shelf.width, shelf.dtype, section)
        self.remote = Remote(f"{url.rstrip('/')}/{shelf.folder.name}")
        self._description = Description(shelf.fingerprint, shelf.width, shelf.dtype)
        self._digest = digest(shelf.fingerprint)
        self._segments: dict[str, frozenset[str]] = {}  # ids by name; of damaged ones none
        self._sizes: dict[str, int] = {}  # bytes
        self._described = False

    def ids(self) -> frozenset[str]:
        """Rows that lay at the URL when `look`, `pull` or `push` saw it last."""
        return frozenset().union(*self._segments.values())

    def lacking(self, ids: Sequence[str]) -> list[str]:
        """Those of `ids` that are here and, as far as is known, not there."""
        here, there = self.shelf.ids(), self.ids()
        return [name for name in ids if name in here and name not in there]

    def look(self) -> None:
        """Take in which rows lie at the URL now.

        RemoteError where it cannot be reached; AgiqaError where it holds a shelf of another
        fingerprint, width or layout.
        """
        files = self.remote.files()
        self._described = DESCRIPTION in files
        if self._described:
            where = shown(self.remote.url)
            text = self.remote.read(DESCRIPTION, most=MOST_BYTES)
            described = parse_description(text, f"{where}/{DESCRIPTION}")
            require_same_shelf(described, self._description, where=where)
        new: dict[str, tuple[str, int, int]] = {}
        for path, about in files.items():
            name = path.removeprefix("segments/")
            if (rows := rows_of(name)) is None or name in self._segments:
                continue
            if not is_plausible(name, about.size, self.shelf.width, self.shelf.dtype):
                self._report(name, f"{about.size:,} bytes, too few or too many for {rows:,} rows")
                continue
            new[name] = (path, about.size - rows * ID_BYTES, about.size)
            self._sizes[name] = about.size
        for name, tail in zip(new, self.remote.read_parts(list(new.values())), strict=True):
            if tail is not None and len(tail) == (rows_of(name) or 0) * ID_BYTES:
                self._segments[name] = frozenset(ids_of(tail))
            else:
                self._report(name, "a segment that is cut short")

    def pull(self, ids: Sequence[str]) -> int:
        """Add those of `ids` that this machine lacks and the URL has; how many.

        Rows of the user's own ledger come first, and are not fetched. A segment that is damaged is
        named in a warning and left alone. Errors: as `look`, and those of the disk.
        """
        self.look()
        wanted = set(ids) - self.shelf.ids()
        if not wanted:
            return 0
        count = 0
        with self.shelf.writer() as writer:
            for names, vectors in self._found(wanted):
                count += _add(writer, names, vectors, wanted)
        return count

    def push(self, ids: Sequence[str]) -> int:
        """Put those of `ids` that are here and not there into segments at the URL; how many.

        RemoteError where it cannot be reached, with what was pushed before taken note of.
        """
        count = 0
        lacking = self.lacking(ids)
        for start in range(0, len(lacking), ROWS_A_SEGMENT):
            if not self._described:
                self.remote.write(DESCRIPTION, self._description.text().encode())
                self._described = True
            names, vectors = _whole(self.shelf, lacking[start : start + ROWS_A_SEGMENT])
            if names:
                name, data = build(self._digest, names, vectors)
                self.remote.write(f"segments/{name}", data)
                self._segments[name], self._sizes[name] = frozenset(names), len(data)
                count += len(names)
        return count

    def _found(self, wanted: set[str]) -> Iterator[tuple[Sequence[str], Vectors]]:
        """Rows that may be wanted: of the user's own ledger, then of segments while any are."""
        own = own_root() / self.shelf.folder.name
        if own != self.shelf.folder and (own / DESCRIPTION).is_file():
            shelf = self.shelf
            mine = Shelf.open(own.parent, shelf.fingerprint, shelf.width, shelf.dtype)
            there = sorted(wanted & mine.ids())
            for start in range(0, len(there), ROWS_A_SEGMENT):
                yield _whole(mine, there[start : start + ROWS_A_SEGMENT])
        held = self._segments
        names = [name for name in held if held[name] & wanted]
        for start in range(0, len(names), AT_ONCE):
            some = [name for name in names[start : start + AT_ONCE] if held[name] & wanted]
            whole = [(f"segments/{name}", 0, self._sizes[name]) for name in some]
            for name, data in zip(some, self.remote.read_parts(whole), strict=True):
                try:
                    if data is None:
                        raise SegmentError("nothing any more")
                    yield parse(name, data, self._digest, self.shelf.width, self.shelf.dtype)
                except SegmentError as error:
                    self._report(name, str(error))

    def _report(self, name: str, found: str) -> None:
        self._segments[name] = frozenset()
        logger.warning(
            "%s/segments/%s: expected whole rows, found %s; none of it was taken: its rows are "
            "computed and pushed again, and the object may be deleted",
            shown(self.remote.url),
            name,
            found,
        )


def _add(writer: ShelfWriter, ids: Sequence[str], vectors: Vectors, wanted: set[str]) -> int:
    """Add the rows that are wanted, and want them no more; how many."""
    places = [place for place, name in enumerate(ids) if name in wanted]
    writer.add([ids[place] for place in places], vectors[places])
    wanted.difference_update(ids[place] for place in places)
    return len(places)


def _whole(shelf: Shelf, ids: Sequence[str]) -> tuple[Sequence[str], Vectors]:
    """Rows (N, D) of those of `ids` that can be read back."""
    try:
        return ids, shelf.read(ids)
    except DamagedRowsError as error:
        names = [name for name in ids if name not in error.image_ids]
        return names, shelf.read(names)
