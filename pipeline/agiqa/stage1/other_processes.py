"""What rank 0 sees of other ranks, from the ledger alone: who writes, who ended, who never came.

Ranks exchange no messages. A rank's own lock says that it lives (the kernel frees it with the
process), the rows that are there what it has finished. Where locks do not reach other machines, as
on some cluster file systems, rows that keep coming say that it lives.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from agiqa.core.processes import Process
from agiqa.store import Shelf

log = logging.getLogger(__name__)

START_SECONDS = 60.0  # a rank without lock or new rows for so long never came
END_SECONDS = 5.0  # one that had the lock and is without it for so long has died
POLL_SECONDS = 0.5
LINE_EVERY = 20.0  # seconds between lines about the same ranks


@dataclass
class _Rank:
    """Another rank, as seen so far."""

    share: Sequence[Sequence[str]]  # row ids, shelf by shelf
    sign: float  # when it last showed that it lives
    lacking: int  # vectors of its share that are not in the ledger
    writing: bool = False  # now: it holds its lock
    seen: bool = False  # writing

    def look(self, lacking: int, writing: bool) -> None:
        if writing or lacking != self.lacking:
            self.sign = time.monotonic()
        self.lacking, self.writing, self.seen = lacking, writing, self.seen or writing

    def is_expected(self) -> bool:
        """Whether it is at work, or may still come and add rows that are lacking."""
        if self.writing:
            return True
        patience = END_SECONDS if self.seen else START_SECONDS
        return self.lacking > 0 and time.monotonic() - self.sign < patience


def wait_for_others(
    known: Sequence[Sequence[str]], shelves: Sequence[Shelf], world: int, started: float
) -> None:
    """Return once no other rank is at work, nor any expected that lacks rows; for rank 0.

    A normal run waits for the slowest rank and no longer. Ranks that died or never came are named,
    and what they left is for the caller to compute.

    Args:
        known: row ids of all images, shelf by shelf, in the order in which they were shared out.
        shelves: the ledger's, one for each vector.
        world: number of ranks.
        started: when rank 0 began, by `time.monotonic`; so long others have had to come, too.
    """
    shares = {rank: [Process(rank, world).share(ids) for ids in known] for rank in range(1, world)}
    others = {rank: _Rank(share, started, sum(map(len, share))) for rank, share in shares.items()}
    said: tuple[list[int], float] = ([], started)
    while True:
        present = [shelf.ids() for shelf in shelves]
        for rank, other in others.items():
            pairs = zip(other.share, present, strict=True)
            lacking = sum(name not in there for names, there in pairs for name in names)
            other.look(lacking, any(shelf.is_written(rank) for shelf in shelves))
        expected = [rank for rank, other in others.items() if other.is_expected()]
        if not expected:
            break
        if expected != said[0] or time.monotonic() - said[1] > LINE_EVERY:
            said = (expected, time.monotonic())
            lacking = sum(others[rank].lacking for rank in expected)
            log.info("waiting for %s: %d vectors to come", _names(expected), lacking)
        time.sleep(POLL_SECONDS)
    if gone := [rank for rank, other in others.items() if other.lacking]:
        left = sum(others[rank].lacking for rank in gone)
        log.warning("%s left %d vectors; rank 0 takes them over", _names(gone), left)


def _names(ranks: Sequence[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
