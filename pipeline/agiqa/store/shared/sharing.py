"""The shared ledger while an extraction runs: rows pulled before it, new ones pushed behind it.

`AGIQA_STORE` may be a URL. The ledger then lies in the user's cache folder as ever, one for each
URL, and is brought together with the URL's (shared_shelf.py) by `extract`. Pushing takes a thread
that reads acknowledged rows from the disk; computing never waits for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread

from agiqa.core.errors import AgiqaError
from agiqa.core.urls import shown
from agiqa.store.ledger.roots import default_url
from agiqa.store.ledger.shelf import Shelf
from agiqa.store.shared.remote import RemoteError
from agiqa.store.shared.shared_shelf import SharedShelf

logger = logging.getLogger(__name__)

PUSH_SECONDS = 60.0  # between pushes; a machine that is lost takes no more with it


def shared_shelves(shelves: Sequence[Shelf], own_folder: bool = False) -> list[SharedShelf]:
    """The shelves as `AGIQA_STORE` shares them: none unless it is a URL, or with `own_folder`."""
    url = None if own_folder else default_url()
    return [SharedShelf(shelf, url) for shelf in shelves] if url else []


def pull(
    shared: Sequence[SharedShelf], row_ids: Sequence[Sequence[str]], or_warn: bool = False
) -> int:
    """Bring here what this machine lacks of `row_ids`, shelf by shelf; how many.

    RemoteError where the URL cannot be reached: computing what others may have would be a waste.
    With `or_warn`, for later on, only a warning.
    """
    started, count = time.monotonic(), 0
    try:
        for shelf, ids in zip(shared, row_ids, strict=bool(shared)):
            count += shelf.pull(ids)
    except RemoteError as error:
        if or_warn:
            logger.warning("%s; extraction goes on here", error)
            return count
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
        stop.set()
        thread.join()
        _push_last(work)  # what was finished before the failure
        raise
    finally:
        stop.set()
    thread.join()
    _push_last(work)


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


def _push_last(work: Sequence[tuple[SharedShelf, Sequence[str]]]) -> None:
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
