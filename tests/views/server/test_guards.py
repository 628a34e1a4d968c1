"""What stands before the app: each guard before a tiny app of its own."""

import asyncio

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from agiqa.views.server.decoding import shown_name
from agiqa.views.server.guards import SameOrigin
from agiqa.views.server.server import is_local


async def _reads_all(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


def _client(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:1")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://localhost:1"}, 200),
        ({"origin": "http://localhost:2"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
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
        ("\x1b[2Ja\u2028b.png", "�[2Ja�b.png"),
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
