"""What stands before the app: each guard before a tiny app of its own."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from agiqa.serving.guards import AtOnce, Counted, InTime, SameOrigin
from agiqa.serving.limits import Limits
from agiqa.serving.server import is_local
from agiqa.serving.uploads import shown_name


async def _reads_all(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


def _client(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:1")


def test_what_is_too_slow_is_given_up_and_says_so() -> None:
    ended: list[str] = []

    async def sleepy(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def ask() -> httpx.Response:
        async with _client(InTime(sleepy, 0.05)) as client:
            return await client.post("/")

    answer = asyncio.run(ask())
    assert answer.status_code == 504
    assert "Not answered within 0.05 s" in answer.json()["detail"]
    assert ended == ["cancelled"]


def test_too_many_at_once_are_told_when_to_come_again() -> None:
    async def ask() -> list[httpx.Response]:
        may = asyncio.Event()

        async def waits(scope: Scope, receive: Receive, send: Send) -> None:
            await may.wait()
            await _reads_all(scope, receive, send)

        async with _client(AtOnce(waits, replace(Limits(), requests=2))) as client:
            under = [asyncio.create_task(client.post("/")) for _ in range(2)]
            await asyncio.sleep(0.05)
            refused = await client.post("/")
            may.set()
            return [refused, *await asyncio.gather(*under), await client.post("/")]

    refused, *fine = asyncio.run(ask())
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert "2 requests are under way" in refused.json()["detail"]
    assert [each.status_code for each in fine] == [200, 200, 200]


@pytest.mark.parametrize(("size", "status"), [(100, 200), (101, 413)])
def test_a_body_is_counted_by_its_header_or_as_it_comes(size: int, status: int) -> None:
    async def drops() -> AsyncIterator[bytes]:
        for _ in range(size):
            yield b"x"

    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.middleware.exceptions import ExceptionMiddleware

        await Counted(ExceptionMiddleware(_reads_all), 100)(scope, receive, send)

    async def ask() -> list[httpx.Response]:
        async with _client(refusing) as client:
            return [
                await client.post("/", content=b"x" * size),
                await client.post("/", content=drops()),
            ]

    assert [each.status_code for each in asyncio.run(ask())] == [status, status]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://localhost:1"}, 200),
        ({"origin": "http://localhost:2"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_other_pages_are_refused(headers: dict[str, str], status: int) -> None:
    async def ask() -> httpx.Response:
        async with _client(SameOrigin(_reads_all)) as client:
            return await client.post("/", headers=headers)

    assert asyncio.run(ask()).status_code == status


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a.png", "a.png"),
        ("../../etc/passwd", "passwd"),
        ("C:\\pictures\\b.png", "b.png"),
        ("a\r\nb\x00\u202e.png", "a��b��.png"),
        ("", "unnamed"),
        ("/", "unnamed"),
        (None, "unnamed"),
        ("x" * 999, "x" * 255),
    ],
)
def test_names_are_for_display(name: str | None, shown: str) -> None:
    assert shown_name(name) == shown


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("192.168.0.7", False), ("example.org", False)],
)  # fmt: skip
def test_which_addresses_only_this_machine_reaches(host: str, local: bool) -> None:
    assert is_local(host) is local
