"""The requests under way: how many, how long each may take, and what becomes of them at a stop.

A server that is told to stop takes no more (503, `Retry-After`), and gives those under way the time
that any request has; what is left then, or at a second signal, is answered with 503 as well. Health
and metrics are answered throughout.
"""

import asyncio
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agiqa.views.server.limits import Limits

RETRY_SECONDS = 5
ALWAYS = ("/health", "/health/ready", "/metrics")  # also while the server stops
STOPPING = "The server is stopping; try again later."


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
