"""The machine's own Chromium (Debian's, or whichever is on PATH), and what a page must not do."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [  # it starts anywhere without asking anybody for anything
    "--no-sandbox",  # it does not start as root with one
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
QUIET = ("file:", "data:", "blob:")  # addresses that leave nobody's machine


@contextmanager
def open_browser() -> Iterator[Any]:
    """Start the browser; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser on PATH ({', '.join(NAMES)})")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def open_tab(browser: Any, page: Path | str | None = None, **context: Any) -> Iterator[Any]:
    """A tab with a profile of its own, and a page: a file, or a server's address.

    Afterwards no console message is accepted, and no request but to that server.
    """
    complaints = []

    def hear(message: Any) -> None:
        if message.type != "trace":  # Plotly's, that it has no MathJax
            complaints.append(f"{message.type}: {message.text}")

    def see(request: Any) -> None:
        if not request.url.startswith((*QUIET, page) if isinstance(page, str) else QUIET):
            complaints.append(f"request: {request.url}")

    with browser.new_context(**context) as window:
        window.set_default_timeout(120_000)  # milliseconds; machines are busy
        tab = window.new_page()
        tab.on("console", hear)
        tab.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        tab.on("request", see)
        if page is not None:
            tab.goto(page if isinstance(page, str) else page.as_uri())
        yield tab
        assert not complaints, complaints
