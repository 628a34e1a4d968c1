"""Time and memory for Python that strangers wrote and that only computes, such as a template."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agiqa.core.regular_files import MIB


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
