"""Progress of long work: a bar with rate and time left on a terminal, plain lines elsewhere.

Of several processes that a launcher started, rank 0 alone shows its own.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from agiqa.core.processes import this_process

log = logging.getLogger(__name__)

Item = TypeVar("Item")
LINE_EVERY = 20.0  # seconds between plain lines


def track(
    items: Iterable[Item],
    label: str,
    unit: int = 1,
    total: int | None = None,
    size: Callable[[Item], int] | None = None,
) -> Iterator[Item]:
    """Yield `items`, showing how far along they are.

    Args:
        items: what to iterate over; must have a length, or a total be given.
        label: what is being done, in a word or two.
        unit: images an item stands for, so that the rate counts images.
        total: images in all; by default items times `unit`.
        size: images that an item stands for, where items differ.
    """
    if total is None:
        total = len(items) * unit if isinstance(items, Sized) else 0
    count = size or (lambda _: unit)
    process = this_process()
    if process.world > 1:
        label = f"{label}, {process}"
    if process.rank > 0:
        yield from items
    else:
        yield from (_bar if sys.stderr.isatty() else _lines)(items, label, count, total)


def _bar(
    items: Iterable[Item], label: str, size: Callable[[Item], int], total: int
) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total, rate="")
        done = 0
        for item in items:
            yield item
            done += size(item)
            count = min(done, total)
            rate = count / max(time.monotonic() - started, 1e-9)
            progress.update(task, completed=count, rate=f"{rate:.1f}/s")


def _lines(
    items: Iterable[Item], label: str, size: Callable[[Item], int], total: int
) -> Iterator[Item]:
    started = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        now = time.monotonic()
        done += size(item)
        count = min(done, total)
        if now - last >= LINE_EVERY and count < total:
            rate = count / (now - started)
            seconds_left = (total - count) / rate
            log.info("%s: %d of %d, %.1f/s, %.0f s left", label, count, total, rate, seconds_left)
            last = now
    if last != started:
        log.info("%s: %d done in %.0f s", label, total, time.monotonic() - started)
