"""The site builds strictly, has what it promises, and asks no other host for anything."""

import functools
import http.server
import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import pytest

from agiqa.cli import COMMANDS, main

REPOSITORY = Path(__file__).parents[2]
FETCHED = re.compile(
    r"""<(?:script|img|iframe)[^>]+src=["']?([^"'\s>]+)|<link[^>]+href=["']?([^"'\s>]+)"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` does; other tools' deprecations are theirs."""
    os.environ["NO_MKDOCS_2_WARNING"] = "1"
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    before = Path.cwd()
    os.chdir(REPOSITORY)
    try:
        config = load_config(str(REPOSITORY / "mkdocs.yml"), strict=True, site_dir=str(folder))
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
    finally:
        os.chdir(before)
    return folder


def test_pages_are_made_of_what_is_there(site: Path) -> None:
    commands = (site / "commands.html").read_text()
    for name in COMMANDS:
        assert f'id="agiqa-{name}"' in commands
        command = main.get_command(click.Context(main), name)
        assert command is not None
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.opts[-1] in commands
    assert "Two commands" in (site / "index.html").read_text()
    assert "create_scorer" in (site / "python.html").read_text()
    assert "data:image/png;base64," in (site / "tour.html").read_text()
    assert "semantic_content" in (site / "source/prompts.html").read_text()
    assert "source/params.yaml.html" in (site / "extraction.html").read_text()


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        fetched = [source or link for source, link in FETCHED.findall(page.read_text())]
        assert fetched
        assert [url for url in fetched if re.match("(https?:)?//", url)] == [], page


@pytest.mark.browser
def test_pages_in_a_browser(site: Path, opened: Callable[..., Any]) -> None:
    from playwright.sync_api import TimeoutError as NotThere

    handler = functools.partial(_Silent, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        with opened(address) as page:
            for name in ("index", "tour", "commands", "python"):
                page.goto(f"{address}{name}.html")
            query = page.locator("input[name=query]")
            results = page.locator(".md-search-result__item")
            for _ in range(24):
                query.fill("")
                query.press_sequentially("ledger")  # the page listens to keys; before its index is
                with suppress(NotThere):  # there it may miss them
                    results.first.wait_for(timeout=5000)
                    break
            assert results.first.is_visible()
        server.shutdown()


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Tests print nothing."""
