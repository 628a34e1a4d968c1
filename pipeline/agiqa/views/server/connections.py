"""uvicorn, with bounds for connections that ask nothing, and an end that keeps its word.

uvicorn limits requests at once, idle connections between requests and the size of a head; what it
does not limit is the time until a head is complete, and how many connections are accepted. Its own
stop closes the door at once and cuts off what is under way.
"""

import asyncio
import errno
import logging
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import h11
import uvicorn
from cachetools import TTLCache
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from agiqa.views.server.guards import UnderWay
from agiqa.views.server.limits import Limits

CLOSING_SECONDS = 3  # for connections and the models' thread, once all requests are answered
RESERVED = 256  # descriptors for models, ledger, decoders and files of requests
LATE_SECONDS = 10  # beyond the grace of a stop, before the process is ended from within
LAST_SECONDS = 20  # and by the kernel
REPEAT_SECONDS = 60.0  # between two log lines of one kind
TALKATIVE = ("asyncio", "uvicorn.error", "agiqa.views.server.decoding")

log = logging.getLogger(__name__)


def limited_by_descriptors(limits: Limits) -> Limits:
    """The limits, with as many connections as this process may have descriptors for.

    The soft limit of descriptors is raised where it can be.
    """
    descriptors = limits.connections + limits.backlog + RESERVED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, descriptors)
    if soft < descriptors:
        soft = min(descriptors, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft - RESERVED - limits.backlog >= limits.connections:
        return limits
    backlog = min(limits.backlog, 16)
    return replace(limits, backlog=backlog, connections=max(8, soft // 4))


def make_protocol(limits: Limits) -> type[H11Protocol]:
    """Make uvicorn's protocol with those limits."""

    class Protocol(H11Protocol):
        """A connection that is closed where its head does not come, or where there are too many."""

        due: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # of answers that nobody takes off the wire
                wire = transport.get_extra_info("socket")
                seconds = int(limits.body_seconds * 1000)
                wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds)
            if len(self.connections) > limits.connections + limits.backlog:
                transport.abort()  # before uvicorn's own limit can answer them one by one
            self.watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self.unwatch()

        def watch(self) -> None:
            """Close the connection in time, unless the head of a request is complete."""
            if self.conn.their_state is not h11.IDLE:
                self.unwatch()
            elif self.due is None:
                self.due = self.loop.call_later(limits.head_seconds, self.transport.abort)

        def unwatch(self) -> None:
            if self.due is not None:
                self.due.cancel()
                self.due = None

    return Protocol


class Server(uvicorn.Server):
    """uvicorn's server of an app, within the limits, which finishes what is under way at its stop.

    At the first signal no more is taken; at the second, or after the grace, what is left is
    answered with 503. Whatever then still keeps the process is left behind: `on_late` is called
    from a thread of its own, and the kernel has the last word.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        under_way: UnderWay,
        on_stop: Callable[[int], object],
        on_late: Callable[[], object],
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=make_protocol(limits),
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=limits.backlog,
                limit_concurrency=limits.connections,
                h11_max_incomplete_event_size=limits.head_bytes,
                timeout_keep_alive=limits.idle_seconds,
                timeout_graceful_shutdown=CLOSING_SECONDS,
            )
        )
        self.under_way, self.grace = under_way, limits.seconds
        self.on_stop, self.on_late = on_stop, on_late
        self.until = float("inf")
        self.watchdog: threading.Timer | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal: begin to stop, or stop now."""
        if self.under_way.stopping:
            self.until = 0.0
            self._end_within(0.0)
            return
        self.under_way.stopping = True
        self.until = time.monotonic() + self.grace
        self._end_within(self.grace)
        if self.under_way:
            self.on_stop(len(self.under_way))

    async def on_tick(self, counter: int) -> bool:
        """Whether to shut down; asked every tenth of a second."""
        if self.under_way.stopping and (not self.under_way or time.monotonic() >= self.until):
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is left, and close."""
        self.under_way.cut()
        await super().shutdown(sockets)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until it has stopped."""
        try:
            super().run(sockets)
        finally:
            if self.watchdog is not None:
                self.watchdog.cancel()
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _end_within(self, seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds + LAST_SECONDS)
        if self.watchdog is not None:
            self.watchdog.cancel()
        self.watchdog = threading.Timer(seconds + LATE_SECONDS, self.on_late)
        self.watchdog.daemon = True
        self.watchdog.start()


def hold_back_repeated() -> None:
    """Hold back repeated log lines of those whom clients can make speak, from now on."""
    seldom = SeldomRepeated()
    for name in TALKATIVE:
        logging.getLogger(name).addFilter(seldom)


class SeldomRepeated(logging.Filter):
    """Lets one line of a kind through in a while: clients can make them come by the thousand."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: TTLCache[object, bool] = TTLCache(1000, REPEAT_SECONDS)
        self._lock = threading.Lock()  # of `_shown`: any thread may log

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown; descriptors that have run out are said in one line."""
        error: Any = record.exc_info[1] if record.exc_info else None
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            record.msg = "No file descriptors are left (limit %d): new connections wait."
            record.args, record.exc_info, record.exc_text = (limit,), None, None
        elif error is not None and record.name != "asyncio":
            return True  # a failure of ours, which is to be seen each time
        with self._lock:
            is_new = record.msg not in self._shown
            if is_new:
                self._shown[record.msg] = True
        return is_new
