"""A ledger that machines share: rows pulled from a URL before an extraction, pushed behind it.

`AGIQA_STORE` may be a URL. The ledger then lies in the user's cache folder as ever, one for each
URL, and is brought together with the URL's by `extract`. Pushing takes a thread that reads
acknowledged rows from the disk; computing never waits for it.

    <url>/<the shelf's name>/fingerprint.json             as in the ledger
    <url>/<the shelf's name>/segments/<…>.safetensors     rows, as in the ledger

Each side gets what the other has and it lacks, of the rows that are asked for. Any number of
machines write at once without a lock. Where two computed the same row, both are there, and either
serves. The ledger here stays the truth about what has been computed.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread

from agiqa.core.errors import AgiqaError
from agiqa.core.urls import shown
from agiqa.store.ledger.segment_rows import SegmentRows
from agiqa.store.ledger.segments import RemoteSegments, rows_a_segment
from agiqa.store.ledger.shelf import (
    DESCRIPTION,
    MOST_BYTES,
    Shelf,
    default_url,
    own_root,
    parse_description,
    require_same_shelf,
)
from agiqa.store.remote import Remote, RemoteError
from agiqa.store.rows import Vectors

logger = logging.getLogger(__name__)

PUSH_SECONDS = 60.0  # between pushes; a machine that is lost takes no more with it


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
            vectors, damaged = self.shelf.refreshed().read(ids)
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


def shared_shelves(shelves: Sequence[Shelf], own_folder: bool = False) -> list[SharedShelf]:
    """The shelves as `AGIQA_STORE` shares them: none unless it is a URL, or with `own_folder`."""
    url = None if own_folder else default_url()
    return [SharedShelf(shelf, url) for shelf in shelves] if url else []


def pull(shared: Sequence[SharedShelf], row_ids: Sequence[Sequence[str]]) -> int:
    """Bring here what this machine lacks of `row_ids`, shelf by shelf; how many.

    RemoteError where the URL cannot be reached: computing what others may have would be a waste.
    """
    started, count = time.monotonic(), 0
    try:
        for shelf, ids in zip(shared, row_ids, strict=bool(shared)):
            count += shelf.pull(ids)
    except RemoteError as error:
        raise RemoteError(f"{error}; or unset AGIQA_STORE to work alone") from error
    if count:
        url, seconds = shown(shared[0].remote.url.rpartition("/")[0]), time.monotonic() - started
        logger.info("%d vectors from %s in %.1f s", count, url, seconds)
    return count


@contextmanager
def pushing(
    shared: Sequence[SharedShelf], row_ids: Sequence[Sequence[str]], seconds: float = PUSH_SECONDS
) -> Iterator[None]:
    """Push rows of `row_ids`, shelf by shelf, every `seconds` and at the end.

    A URL that cannot be reached stops nothing: a warning says so once, and at the end how many
    rows are not there. Those are pushed by the next `extract` of the same images.
    """
    work = list(zip(shared, row_ids, strict=bool(shared)))
    if not work:
        yield
        return
    stop = Event()
    thread = Thread(target=_push_every, args=(work, seconds, stop), name="push", daemon=True)
    thread.start()
    try:
        yield
    except Exception:
        _push_last(work, thread, stop)  # what was finished before the failure
        raise
    finally:
        stop.set()
    _push_last(work, thread, stop)


def _push_every(
    work: Sequence[tuple[SharedShelf, Sequence[str]]], seconds: float, stop: Event
) -> None:
    failing = False
    while not stop.wait(seconds):
        try:
            for shelf, ids in work:
                shelf.push(ids)
            failing = False
        except AgiqaError as error:
            if not failing:
                logger.warning("%s; extraction goes on here, and tries again", error)
            failing = True


def _push_last(
    work: Sequence[tuple[SharedShelf, Sequence[str]]], thread: Thread, stop: Event
) -> None:
    stop.set()
    thread.join()
    started, count = time.monotonic(), 0
    url = shown(work[0][0].remote.url.rpartition("/")[0])
    try:
        for shelf, ids in work:
            if shelf.unpushed(ids):
                shelf.look()  # others may have pushed the same by now
                count += shelf.push(ids)
    except AgiqaError as error:
        missing_count = sum(len(shelf.unpushed(ids)) for shelf, ids in work)
        logger.warning(
            "%d vectors are not at %s yet (they are safe here): %s to push them",
            missing_count,
            url,
            error,
        )
        return
    if count:
        logger.info("%d vectors to %s in %.1f s", count, url, time.monotonic() - started)
