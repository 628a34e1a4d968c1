"""The machine's own Chromium, driven by Playwright, that notes what a page must not do."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
QUIET = ("file:", "data:", "blob:")  # addresses that leave nobody's machine


def chromium() -> str:
    """Where it is; the test is skipped where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser on PATH ({', '.join(NAMES)})")
    return found


@contextmanager
def opened(page: Path, **context: Any) -> Iterator[Any]:
    """A tab that will `goto` the page; afterwards no console message and no request is accepted."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program, complaints = chromium(), []

    def said(message: Any) -> None:
        if message.type in ("error", "warning"):
            complaints.append(f"{message.type}: {message.text}")

    def asked(request: Any) -> None:
        if not request.url.startswith(QUIET):
            complaints.append(f"request: {request.url}")

    with TemporaryDirectory() as profile, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch_persistent_context(
            profile, executable_path=program, args=list(ARGUMENTS), **context
        )
        tab = browser.pages[0]
        tab.on("console", said)
        tab.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        tab.on("request", asked)
        try:
            yield tab
        finally:
            browser.close()
    assert complaints == []
