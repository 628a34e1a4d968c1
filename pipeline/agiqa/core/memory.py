"""What a CPU frees is kept for the next tensors; what a GPU has no room for is halved.

And bounds on the time and memory of Python that strangers wrote and that only computes, such as a
template.
"""

import ctypes
import gc
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from agiqa.core.errors import AgiqaError
from agiqa.core.regular_files import MIB

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# Of glibc's malloc.h.
TRIM_THRESHOLD, MMAP_MAX = -1, -4


class NoRoomError(AgiqaError):
    """Not even one image fits into memory."""


def keep_freed_memory() -> None:
    """Let this process keep what its tensors free, up to 2 GiB, for the next ones.

    glibc gives blocks of over 32 MiB, as a batch's activations are, back to the system and has
    them anew, zeroed page by page, for each operation: a sixth of a tower's pass. Sums do not
    change. Without glibc, or if it declines, nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(MMAP_MAX, 0)
    mallopt(TRIM_THRESHOLD, 2**31 - 1)


def ran_out(error: BaseException) -> bool:
    """Whether the error says that memory ran out, on whichever device."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, Exception) and bool(should_reduce_batch_size(error))


def halve(size: int, doing: str, advice: str) -> int:
    """Give half of `size`, after freeing what the failed attempt held.

    Args:
        size: images at a time.
        doing: what for.
        advice: what to do where one image is too many, and what is kept.

    Raises:
        NoRoomError: there is nothing left to halve.
    """
    from accelerate.utils.memory import clear_device_cache

    gc.collect()
    clear_device_cache()
    if size == 1:
        raise NoRoomError(
            f"Memory ran out with 1 image at a time ({doing}): close what else uses the GPU, "
            f"{advice}."
        )
    log.warning("Memory ran out with %d images at a time (%s): %d now.", size, doing, size // 2)
    return size // 2


def in_batches_that_fit(
    count: int,
    size: int,
    work: Callable[[int, int], Result],
    halved: Callable[[int], None],
    advice: str,
) -> list[Result]:
    """Work on `count` images, `size` at a time, or half as many as often as memory runs out.

    Args:
        count: images in all.
        size: images at a time.
        work: takes the first image's number and that after the last one's.
        halved: takes the new size, so that it holds from then on.
        advice: what to do where one image is too many, and what is kept.

    Raises:
        NoRoomError: one image is too many.
    """
    results: list[Result] = []
    start = 0
    while start < count:
        stop = min(start + size, count)
        try:
            results.append(work(start, stop))
            start = stop
            continue
        except RuntimeError as error:
            if not ran_out(error):
                raise
        # Out here, where nothing refers to the failed batch's tensors.
        size = halve(size, "extraction", advice)
        halved(size)
    return results


def with_halving(work: Callable[[int], Result], size: int, doing: str, advice: str) -> Result:
    """`work(size)`, with half the size as often as memory runs out."""
    while True:
        try:
            return work(size)
        except RuntimeError as error:
            if not ran_out(error):
                raise
        size = halve(size, doing, advice)


class TookTooLongError(Exception):
    """The time of `bounded` is over."""


@contextmanager
def bounded(seconds: float, mebibytes: int) -> Iterator[None]:
    """End what runs inside, in this thread, when it takes longer or more memory.

    Memory is bounded on Linux alone, for the whole process while this lasts.

    Raises:
        TookTooLongError: the time is over.
        MemoryError: so is the memory.
    """
    thread, is_over, lock = threading.get_ident(), False, threading.Lock()

    def end() -> None:
        with lock:
            if not is_over:
                error = ctypes.py_object(TookTooLongError)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    with _memory(mebibytes):
        timer.start()
        try:
            yield
        finally:
            with lock:
                is_over = True
            timer.cancel()


@contextmanager
def _memory(mebibytes: int) -> Iterator[None]:
    status = Path("/proc/self/status")
    if not status.exists():
        yield
        return
    import resource

    in_use = next(line for line in status.read_text().splitlines() if line.startswith("VmData"))
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit = int(in_use.split()[1]) * 1024 + mebibytes * MIB
    if before[0] != resource.RLIM_INFINITY:
        limit = min(limit, before[0])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
