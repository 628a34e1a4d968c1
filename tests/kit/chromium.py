"""Debian's Chromium for the browser tests: where it is, and how it starts anywhere without asking
anybody for anything."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",  # it does not start as root with one
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def program() -> str:
    """Where it is; the test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser on PATH ({', '.join(NAMES)})")
    return found


@contextmanager
def browser(profile: Path, **context: Any) -> Iterator[Any]:
    """A browser context with an empty profile."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = program()
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch_persistent_context(
            profile, executable_path=executable, args=ARGUMENTS, **context
        )
        opened.set_default_timeout(120_000)  # milliseconds; machines are busy
        try:
            yield opened
        finally:
            opened.close()
