"""One page in the machine's own Chromium, and what a page must not do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kit.chromium import browser

QUIET = ("file:", "data:", "blob:")  # addresses that leave nobody's machine


@contextmanager
def opened(page: Path | None = None, **context: Any) -> Iterator[Any]:
    """A watched tab of a browser of its own, with the page."""
    with (
        TemporaryDirectory() as profile,
        browser(Path(profile), **context) as window,
        watched(window.pages[0]) as tab,
    ):
        if page is not None:
            tab.goto(page.as_uri())
        yield tab


@contextmanager
def watched(tab: Any, *own: str) -> Iterator[Any]:
    """The tab; afterwards no console message is accepted, and no request but to `own` addresses."""
    complaints = []

    def said(message: Any) -> None:
        if message.type != "trace":  # Plotly's, that it has no MathJax
            complaints.append(f"{message.type}: {message.text}")

    def asked(request: Any) -> None:
        if not request.url.startswith((*QUIET, *own)):
            complaints.append(f"request: {request.url}")

    tab.on("console", said)
    tab.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    tab.on("request", asked)
    yield tab
    assert not complaints, complaints
