"""One page in the machine's own Chromium, and what a page must not do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kit.chromium import browser

QUIET = ("file:", "data:", "blob:")  # addresses that leave nobody's machine


@contextmanager
def opened(page: Path, **context: Any) -> Iterator[Any]:
    """A tab that will `goto` the page; afterwards no console message and no request is accepted."""
    complaints = []

    def said(message: Any) -> None:
        if message.type in ("error", "warning"):
            complaints.append(f"{message.type}: {message.text}")

    def asked(request: Any) -> None:
        if not request.url.startswith(QUIET):
            complaints.append(f"request: {request.url}")

    with TemporaryDirectory() as profile, browser(Path(profile), **context) as window:
        tab = window.pages[0]
        tab.on("console", said)
        tab.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        tab.on("request", asked)
        yield tab
    assert complaints == []
