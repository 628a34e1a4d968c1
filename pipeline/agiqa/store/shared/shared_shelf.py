"""A shelf of this machine's ledger and its folder at a URL: rows pulled from there, and pushed.

    <url>/<the shelf's name>/fingerprint.json             as in the ledger
    <url>/<the shelf's name>/segments/<…>.safetensors     rows, as in the ledger

Each side gets what the other has and it lacks, of the rows that are asked for. Any number of
machines write at once without a lock. Where two computed the same row, both are there, and either
serves. The ledger here stays the truth about what has been computed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from agiqa.core.urls import shown
from agiqa.store.ledger.description import (
    DESCRIPTION,
    MOST_BYTES,
    parse_description,
    require_same_shelf,
)
from agiqa.store.ledger.roots import own_root
from agiqa.store.ledger.segment_folders import RemoteSegments
from agiqa.store.ledger.segment_rows import SegmentRows
from agiqa.store.ledger.segments import rows_a_segment
from agiqa.store.ledger.shelf import Shelf
from agiqa.store.rows import Vectors
from agiqa.store.shared.remote import Remote

logger = logging.getLogger(__name__)


class SharedShelf:
    """One shelf, here and at a URL. Not for use from several threads at once."""

    def __init__(self, shelf: Shelf, url: str) -> None:
        """Take a shelf; `url` is the shared ledger's."""
        self.shelf = Shelf(shelf.folder, shelf.described, shelf.rank)
        self.remote = Remote(f"{url.rstrip('/')}/{shelf.folder.name}")
        self._remote_rows = SegmentRows(RemoteSegments(self.remote), shelf.described.kind)
        self._damaged: set[str] = set()  # rows at the URL that fail their checksums
        self._described = False

    def ids(self) -> frozenset[str]:
        """Give ids of rows that were at the URL when `look`, `pull` or `push` saw it last."""
        return self._remote_rows.ids() - self._damaged

    def unpushed(self, ids: Sequence[str]) -> list[str]:
        """List those of `ids` that are here and, as far as is known, not at the URL."""
        local_ids, remote_ids = self.shelf.ids(), self.ids()
        return [name for name in ids if name in local_ids and name not in remote_ids]

    def look(self) -> None:
        """Take in which rows lie at the URL now.

        RemoteError where it cannot be reached; AgiqaError where it holds a shelf of another
        fingerprint, width or layout.
        """
        self._described = DESCRIPTION in self.remote.files()
        if self._described:
            url = shown(self.remote.url)
            text = self.remote.read(DESCRIPTION, most=MOST_BYTES)
            described = parse_description(text, f"{url}/{DESCRIPTION}")
            require_same_shelf(described, self.shelf.described, where=url)
        self._remote_rows.refresh()

    def pull(self, ids: Sequence[str]) -> int:
        """Add those of `ids` that this machine lacks and the URL has; how many.

        Rows of the user's own ledger come first, and are not fetched. Damaged rows, and whole
        segments that are none, are named in a warning and left alone. Errors: as `look`, and those
        of the disk.
        """
        self.look()
        missing_ids, count = set(ids) - self.shelf.ids(), 0
        if not missing_ids:
            return 0
        with self.shelf.writer() as writer:
            for names, vectors in self._wanted_rows(missing_ids):
                writer.add(names, vectors)
                missing_ids.difference_update(names)
                count += len(names)
        if damaged := missing_ids & self._remote_rows.ids():
            self._damaged |= damaged
            logger.warning(
                "%s: expected whole rows, found %d that fail their checksums (first: image %s); "
                "they are computed and pushed again",
                self._remote_rows.folder.where,
                len(damaged),
                min(damaged),
            )
        return count

    def describe(self) -> None:
        """Put the shelf's description at the URL, unless it is known to be there."""
        if not self._described:
            self.remote.write(DESCRIPTION, self.shelf.described.text().encode())
            self._described = True

    def push(self, ids: Sequence[str]) -> int:
        """Put those of `ids` that are here and not there into segments at the URL; how many.

        RemoteError where it cannot be reached, with what was pushed before taken note of.
        """
        count, unpushed = 0, self.unpushed(ids)
        step = rows_a_segment(self._remote_rows.kind)
        for start in range(0, len(unpushed), step):
            self.describe()
            ids = unpushed[start : start + step]
            vectors, damaged = self.shelf.read_present(ids)
            whole = [row for row, name in enumerate(ids) if name not in set(damaged)]
            if whole:
                names = [ids[row] for row in whole]
                self._remote_rows.add(names, vectors[whole])
                self._damaged.difference_update(names)
                count += len(whole)
        return count

    def _wanted_rows(self, wanted: set[str]) -> Iterator[tuple[Sequence[str], Vectors]]:
        """Yield wanted rows: from the user's own ledger, then those still missing from the URL."""
        own_folder, shelf = own_root() / self.shelf.folder.name, self.shelf
        if own_folder != shelf.folder and (own_folder / DESCRIPTION).is_file():
            own_shelf = Shelf.open(own_folder.parent, shelf.fingerprint, shelf.width, shelf.dtype)
            yield from own_shelf.blocks(wanted & own_shelf.ids())
        yield from self._remote_rows.blocks(set(wanted))
