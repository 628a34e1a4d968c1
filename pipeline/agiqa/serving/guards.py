"""What stands before the app: headers, other origins, too many at once, too slow, too large.

Plain ASGI, so that a body is judged as it comes in and never gathered. The Host header is judged by
starlette's TrustedHostMiddleware.
"""

import asyncio
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agiqa.json_text import json_text
from agiqa.serving.limits import Limits
from agiqa.serving.meters import Meters

STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FOR_DOCS = STRICT.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")  # Swagger's own
DOCS = "/docs"
DRAIN_SECONDS = 10.0  # that what is left of a refused body is read and thrown away
RETRY_SECONDS = 5


async def refuse(send: Send, status: int, detail: str, retry: bool = False) -> None:
    """Answer with a `Problem`."""
    body = json_text({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if retry:
        headers.append((b"retry-after", b"%d" % RETRY_SECONDS))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class SafeHeaders:
    """Adds to every answer what keeps a browser from being talked into things."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

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


class Measured:
    """Counts and times every answer by its route."""

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        self.app, self.meters = app, meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
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
        return None


class SameOrigin:
    """Refuses what another page sends here: it could not read the answer, but keep us busy."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            origin, host = headers.get("origin"), headers.get("host", "")
            foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
            if foreign or headers.get("sec-fetch-site") == "cross-site":
                return await refuse(send, 403, "Pages of other origins may not ask this server.")
        return await self.app(scope, receive, send)


class AtOnce:
    """Refuses requests with a body beyond a number under way, before reading any of it."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits, self.under_way = app, limits, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        if self.under_way >= self.limits.requests:
            detail = f"{self.under_way} requests are under way, as many as may; try again later."
            return await refuse(send, 503, detail, retry=True)
        self.under_way += 1
        try:
            return await self.app(scope, receive, send)
        finally:
            self.under_way -= 1


class Counted:
    """Refuses a body that is too large: by what its header says, else as soon as it is."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most
        self.detail = (
            f"The request is larger than {most / 2**20:g} MiB: send fewer or smaller images."
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self.most:
            return await refuse(send, 413, self.detail)
        so_far = 0

        async def counting() -> Message:
            nonlocal so_far
            message = await receive()
            so_far += len(message.get("body", b""))
            if so_far > self.most:
                raise HTTPException(413, self.detail)
            return message

        return await self.app(scope, counting, send)


class InTime:
    """Gives up on what is not answered in time, a body that trickles in included."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app, self.seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            async with asyncio.timeout(self.seconds):
                await self.app(scope, receive, noting)
        except TimeoutError:
            if not started:
                detail = (
                    f"Not answered within {self.seconds:g} s: send fewer images at a time, or "
                    "start the server with a larger --timeout."
                )
                await refuse(send, 504, detail)


class Drained:
    """Reads on for a moment after a refusal, so that a client still sending gets to see it.

    Closing a connection that has unread bytes resets it, and the answer is lost with it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http" or scope["method"] != "POST":
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
