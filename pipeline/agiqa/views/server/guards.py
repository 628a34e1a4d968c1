"""What stands before the app: headers, figures, other origins, how it refuses, what is under way.

Plain ASGI, so that a body is judged as it comes in and never gathered. The Host header is judged by
starlette's TrustedHostMiddleware, the size of a body by FastAPI's `max_body_size`.

A server that is told to stop takes no more (503, `Retry-After`), and gives those under way the time
that any request has; what is left then, or at a second signal, is answered with 503 as well. Health
and metrics are answered throughout.
"""

import asyncio
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

import prometheus_client as prometheus
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agiqa.views.server.limits import MIB, Limits

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
IMAGES = (1, 2, 4, 8, 16, 32, 64)
RETRY_SECONDS = 5
ALWAYS = ("/health", "/health/ready", "/metrics")  # also while the server stops
STOPPING = "The server is stopping; try again later."
DRAIN_SECONDS = 10.0  # that what is left of a refused body is read and thrown away
STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FOR_DOCS = STRICT.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")  # Swagger's own
DOCS = "/docs"
SAFE = {  # beside the policy
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Make the answer to a request that is refused, a `Problem`."""
    again = {"retry-after": str(RETRY_SECONDS)} if status == 503 else {}
    return JSONResponse({"detail": detail}, status, {**(headers or {}), **again})


class HttpMiddleware:
    """Stands before an app for HTTP requests alone; whatever else ASGI brings passes by."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, as ASGI has it."""
        handle = self._handle if scope["type"] == "http" else self.app
        await handle(scope, receive, send)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, by the app or in its place."""
        raise NotImplementedError


class Meters:
    """What /metrics tells; a registry for each server. All may be used from any thread."""

    def __init__(self) -> None:
        prometheus.disable_created_metrics()  # a line more for each other line
        registry = self.registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)  # resident memory, CPU seconds, open files
        prometheus.PlatformCollector(registry=registry)
        self.requests = prometheus.Counter(
            "agiqa_requests",
            "Requests answered, by route and status.",
            ("route", "status"),
            registry=registry,
        )
        self.seconds = prometheus.Histogram(
            "agiqa_request_seconds",
            "From the first byte to the answer.",
            ("route",),
            buckets=SECONDS,
            registry=registry,
        )
        self.images = prometheus.Counter(
            "agiqa_images",
            "Images by what became of them: scored, ledger, remembered, refused.",
            ("outcome",),
            registry=registry,
        )
        self.batches = prometheus.Histogram(
            "agiqa_batch_images",
            "Images in one call of the run.",
            buckets=IMAGES,
            registry=registry,
        )
        self.waiting = prometheus.Gauge("agiqa_waiting", "What is in the queue.", registry=registry)


class SafeAndMeasured(HttpMiddleware):
    """Adds to every answer what keeps a browser from being talked into things; counts and times it.

    By its route, never by the path itself.
    """

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        super().__init__(app)
        self.meters = meters

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.perf_counter(), "none"

        async def with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
                headers = MutableHeaders(scope=message)
                docs = scope["path"].startswith(DOCS)
                headers["content-security-policy"] = FOR_DOCS if docs else STRICT
                headers.update(SAFE)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            await self.app(scope, receive, with_headers)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.meters.requests.labels(route, status).inc()
            self.meters.seconds.labels(route).observe(time.perf_counter() - started)


class AsProblems(HttpMiddleware):
    """Turns the plain text in which libraries refuse a request into a `Problem`, as all others."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        super().__init__(app)
        self.limits = limits

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = 0  # with which status, in words that are not ours
        size = self.limits.request_bytes / MIB
        too_large = f"The request is larger than {size:g} MiB: send less at a time."

        async def as_problem(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] >= 400:
                kind = Headers(raw=message["headers"]).get("content-type", "")
                if kind.startswith("text/plain") or message["status"] == 413:
                    refused = message["status"]
            if not refused:
                await send(message)
            elif message["type"] == "http.response.body":
                words = too_large if refused == 413 else message["body"].decode()
                await problem(refused, words)(scope, receive, send)

        return await self.app(scope, receive, as_problem)


class SameOrigin(HttpMiddleware):
    """Refuses what another page sends here: it could not read the answer, but keep us busy."""

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        foreign = "origin" in headers and _host(headers["origin"]) != host
        if foreign or headers.get("sec-fetch-site") == "cross-site":
            answer = problem(403, "Pages of other origins may not ask this server.")
            return await answer(scope, receive, send)
        return await self.app(scope, receive, send)


def _host(origin: str) -> str | None:
    """Host and port of an Origin header; None where it is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


class Drained(HttpMiddleware):
    """Reads on for a moment after a refusal, so that a client still sending gets to see it.

    Closing a connection that has unread bytes resets it, and the answer is lost with it.
    """

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            return await self.app(scope, receive, send)
        whole = refused = False

        async def noting_end() -> Message:
            nonlocal whole
            message = await receive()
            whole = whole or not message.get("more_body", False)
            return message

        async def lingering(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                refused = message["status"] >= 400 and not whole
                if refused:  # or what comes after the answer would be read for ever
                    MutableHeaders(scope=message)["connection"] = "close"
            elif refused and not message.get("more_body", False):
                await send({**message, "more_body": True})
                try:
                    async with asyncio.timeout(DRAIN_SECONDS):
                        while not whole:
                            await noting_end()
                except TimeoutError:
                    pass
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        return await self.app(scope, noting_end, lingering)


class UnderWay:
    """What is under way, for the guard that counts it and the server that waits for it."""

    def __init__(self) -> None:
        self.stopping = False
        self.cut_off = 0  # requests that a stop has left unanswered
        self.tasks: dict[asyncio.Task[None], str] = {}  # their methods

    def __len__(self) -> int:
        return len(self.tasks)

    def cut(self) -> None:
        """Answer all that are left with 503."""
        self.stopping = True
        self.cut_off += len(self.tasks)
        for task in self.tasks:
            task.cancel()


class Bounded(HttpMiddleware):
    """Refuses requests beyond a number, and those that take too long, a slow body included."""

    def __init__(self, app: ASGIApp, limits: Limits, under_way: UnderWay) -> None:
        super().__init__(app)
        self.limits, self.under_way = limits, under_way

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer in time, or with 503 or 504."""
        if scope["path"] in ALWAYS:
            return await self.app(scope, receive, send)
        if self.under_way.stopping:
            return await problem(503, STOPPING)(scope, receive, send)
        busy = sum(method == "POST" for method in self.under_way.tasks.values())  # may send files
        if scope["method"] == "POST" and busy >= self.limits.requests:
            detail = f"{busy} requests are under way, as many as may; try again later."
            return await problem(503, detail)(scope, receive, send)
        task = asyncio.current_task()
        assert task is not None
        self.under_way.tasks[task] = scope["method"]
        try:
            return await self._in_time(scope, receive, send)
        finally:
            del self.under_way.tasks[task]

    async def _in_time(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            async with asyncio.timeout(self.limits.seconds):
                await self.app(scope, paced(receive, self.limits), noting)
        except TimeoutError:
            refusal = problem(
                504,
                f"Not answered within {self.limits.seconds:g} s: send fewer images at a time, or "
                "start the server with a larger --timeout.",
            )
        except asyncio.CancelledError:
            if not self.under_way.stopping:
                raise
            asyncio.current_task().uncancel()  # type: ignore[union-attr]
            refusal = problem(503, STOPPING)
        else:
            return
        if not started:
            await refusal(scope, receive, send)


def paced(receive: Receive, limits: Limits) -> Receive:
    """`receive` for a body that comes at `body_rate` at least, but for `body_seconds` in all.

    It raises a 408 otherwise: a client that trickles would hold its place for the whole timeout.
    """
    clock = asyncio.get_running_loop()
    due = clock.time() + limits.body_seconds
    whole = False

    async def receive_in_time() -> Message:
        nonlocal due, whole
        if whole:  # the next message is that the client has gone
            return await receive()
        try:
            async with asyncio.timeout_at(due):
                message = await receive()
        except TimeoutError:
            detail = (
                f"The body comes at less than {limits.body_rate} bytes a second: send it again."
            )
            raise HTTPException(408, detail) from None
        due += len(message.get("body", b"")) / limits.body_rate
        whole = not message.get("more_body", False)
        return message

    return receive_in_time
