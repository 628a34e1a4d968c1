"""Requests under way, before a tiny app: how many, how long, and what a stop does with them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import httpx
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agiqa.views.server.guards import Bounded, UnderWay
from agiqa.views.server.limits import Limits


class Waits:
    """Reads the body, says that it has, and answers with its size once it may."""

    def __init__(self) -> None:
        self.began, self.may = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        self.began.set()
        if scope["path"] not in ("/health", "/fast"):
            await self.may.wait()
        await PlainTextResponse(str(len(body)))(scope, receive, send)


def _client(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:1")


def _run(
    ask: Callable[[Waits, UnderWay, httpx.AsyncClient], Awaitable[None]], **limits: float
) -> None:
    async def with_client() -> None:
        app, under_way = Waits(), UnderWay()
        bounded = Bounded(app, replace(Limits(), **limits), under_way)  # type: ignore[arg-type]
        async with _client(ExceptionMiddleware(bounded)) as client:
            await ask(app, under_way, client)
        assert len(under_way) == 0

    asyncio.run(with_client())


def test_what_is_too_slow_is_given_up_and_says_so() -> None:
    async def ask(app: Waits, under_way: UnderWay, client: httpx.AsyncClient) -> None:
        answer = await client.post("/")
        assert answer.status_code == 504
        assert "Not answered within 0.05 s" in answer.json()["detail"]

    _run(ask, seconds=0.05)


def test_too_many_at_once_are_told_when_to_come_again() -> None:
    async def ask(app: Waits, under_way: UnderWay, client: httpx.AsyncClient) -> None:
        posts = []
        for _ in range(2):
            app.began.clear()
            posts.append(asyncio.create_task(client.post("/")))
            await app.began.wait()
        refused = await client.post("/")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert "2 requests are under way" in refused.json()["detail"]
        assert (await client.get("/fast")).status_code == 200
        app.may.set()
        answers = [*await asyncio.gather(*posts), await client.post("/")]
        assert [answer.status_code for answer in answers] == [200, 200, 200]

    _run(ask, requests=2)


def test_a_stop_takes_nothing_new_and_lets_the_others_end() -> None:
    async def ask(app: Waits, under_way: UnderWay, client: httpx.AsyncClient) -> None:
        post = asyncio.create_task(client.post("/", content=b"abc"))
        await app.began.wait()
        under_way.stopping = True
        refused = await client.get("/fast")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert "stopping" in refused.json()["detail"]
        assert (await client.get("/health")).status_code == 200
        app.may.set()
        assert (await post).text == "3"
        assert under_way.cut_off == 0

    _run(ask)


def test_what_a_stop_cuts_off_is_told_to_come_again() -> None:
    async def ask(app: Waits, under_way: UnderWay, client: httpx.AsyncClient) -> None:
        post = asyncio.create_task(client.post("/"))
        await app.began.wait()
        under_way.cut()
        answer = await post
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "stopping" in answer.json()["detail"]
        assert under_way.cut_off == 1

    _run(ask)


def test_a_body_that_trickles_is_given_up() -> None:
    """Bytes keep coming, but fewer than may; a body at its rate may take as long as it wants."""

    async def ask(app: Waits, under_way: UnderWay, client: httpx.AsyncClient) -> None:
        async def body(size: int) -> AsyncIterator[bytes]:
            for _ in range(200):
                yield b"x" * size
                await asyncio.sleep(0.005)

        slow = await client.post("/fast", content=body(1))
        assert slow.status_code == 408
        assert "less than 10000 bytes a second" in slow.text
        assert (await client.post("/fast", content=body(5000))).text == "1000000"

    _run(ask, body_seconds=0.2, body_rate=10_000)


def test_the_clients_leaving_is_no_body() -> None:
    """After a whole body the wait for a disconnect has no end of its own."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"

    async def ask() -> None:
        messages: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Message:
            if messages:
                return messages.pop()
            await asyncio.sleep(0.05)
            return {"type": "http.disconnect"}

        async def send(_: Message) -> None:
            raise AssertionError

        scope = {"type": "http", "path": "/", "method": "POST"}
        limits = replace(Limits(), body_seconds=0.01)
        await Bounded(app, limits, UnderWay())(scope, receive, send)

    asyncio.run(ask())
