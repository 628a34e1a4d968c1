"""What stands before the app: headers, figures, other origins, how it refuses.

Plain ASGI, so that a body is judged as it comes in and never gathered. The Host header is judged by
starlette's TrustedHostMiddleware, the size of a body by FastAPI's `max_body_size`, number and time
of requests by `under_way`.
"""

import asyncio
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agiqa.views.server.limits import Limits
from agiqa.views.server.meters import Meters
from agiqa.views.server.under_way import HttpMiddleware, problem

STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FOR_DOCS = STRICT.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")  # Swagger's own
DOCS = "/docs"
DRAIN_SECONDS = 10.0  # that what is left of a refused body is read and thrown away


class SafeHeaders(HttpMiddleware):
    """Adds to every answer what keeps a browser from being talked into things."""

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                docs = scope["path"].startswith(DOCS)
                headers["content-security-policy"] = FOR_DOCS if docs else STRICT
                headers["x-content-type-options"] = "nosniff"
                headers["referrer-policy"] = "no-referrer"
                headers["cross-origin-resource-policy"] = "same-origin"
                headers["cross-origin-opener-policy"] = "same-origin"
                headers.setdefault("cache-control", "no-store")
            await send(message)

        return await self.app(scope, receive, with_headers)


class Measured(HttpMiddleware):
    """Counts and times every answer by its route."""

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        super().__init__(app)
        self.meters = meters

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.perf_counter(), "none"

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "other")  # never the path itself
            self.meters.requests.labels(route, status).inc()
            self.meters.seconds.labels(route).observe(time.perf_counter() - started)


class AsProblems(HttpMiddleware):
    """Turns the plain text in which libraries refuse a request into a `Problem`, as all others."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        super().__init__(app)
        self.limits = limits

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = 0  # with which status, in words that are not ours

        async def as_problem(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] >= 400:
                kind = Headers(raw=message["headers"]).get("content-type", "")
                if kind.startswith("text/plain") or message["status"] == 413:
                    refused = message["status"]
            if not refused:
                await send(message)
            elif message["type"] == "http.response.body":
                words = self._too_large(scope) if refused == 413 else message["body"].decode()
                await problem(refused, words)(scope, receive, send)

        return await self.app(scope, receive, as_problem)

    def _too_large(self, scope: Scope) -> str:
        json = "json" in Headers(scope=scope).get("content-type", "")
        most = self.limits.json_bytes if json else self.limits.request_bytes
        size = f"{most / 2**20:g} MiB" if most >= 2**20 else f"{most / 2**10:g} KiB"
        return f"The request is larger than {size}: send less at a time."


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
