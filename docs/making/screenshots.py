"""Pictures for the documentation, of a real run: report, app, gallery, terminal.

    make screenshots RUN=runs/agiqa-3k/grouped IMAGES=/data/agiqa-3k/AGIQA-3K

Writes docs/images/*.webp, each below 300 kB, light and dark at 1280 pixels, by Debian's Chromium
under Playwright. (A PNG as small has 256 colours, which spoils photographs and keys.) Only pictures
of AGIQA-3K go into the repository; its licence is MIT, CREDIT says so, and so must the page that
shows them. The run must be evaluated; a version without `agiqa serve` leaves the app out.
"""

import argparse
import contextlib
import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from agiqa.core.errors import AgiqaError

WIDTH, HEIGHT, PHONE = 1280, 1400, (390, 844)
MOST_BYTES = 300_000
FILES = 60  # of the gallery and the terminal
DROPPED = 3  # on the app
CREDIT = (
    "Pictures of AGIQA-3K (Li et al., "
    "https://github.com/lcysyzxdxc/AGIQA-3k-Database), MIT licence."
)
# What is looked at further down the report: a name, and headings of which one is there.
SECTIONS = {
    "residuals": ("Residuals",),
    "images": ("Images",),
    "reasons": ("reasons are worth",),
    "gate": ("Which expert",),
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="an evaluated run")
    parser.add_argument("--images", type=Path, help="folder of its images; default: the data set's")
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    images = _some_images(given.run, given.images, given.cache)
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        sys.exit(f"Expected one of {', '.join(BROWSERS)} on PATH, found none: install chromium.")
    from playwright.sync_api import sync_playwright

    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(QUIET))
        work = Path(folder)
        for step in (_report, _gallery, _terminal, _app):
            started = time.perf_counter()
            step(browser, given.run, given.cache, images, work, given.out)
            print(f"{step.__name__[1:]}: {time.perf_counter() - started:.0f} s")
        browser.close()
    (given.out / "CREDIT.txt").write_text(CREDIT + "\n", encoding="utf-8")
    for path in sorted(given.out.glob("*.webp")):
        print(f"{path.stat().st_size:>8,}  {path}")


def _some_images(run: Path, folder: Path | None, cache: Path) -> list[Path]:
    """Images from the whole range of the MOS, evenly."""
    from agiqa.data.datasets.table import read_table
    from agiqa.runs.files import load_provenance

    provenance = load_provenance(run)
    table = read_table(cache / provenance["dataset"])
    root = folder or table.root
    if root is None:
        sys.exit("Expected the images on this machine, found none: give --images FOLDER.")
    rows = table.frame.sort_values(provenance["target"])
    step = max(len(rows) // FILES, 1)
    return [root / path for path in rows["path"][::step][:FILES]]


def _agiqa(*arguments: str | Path) -> list[str]:
    code = "from agiqa.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


def _report(
    browser: Any, run: Path, cache: Path, images: list[Path], work: Path, out: Path
) -> None:
    page_file = work / "report.html"
    subprocess.run(_agiqa("report", run, "-o", page_file, "--cache", cache), check=True)
    for scheme in ("light", "dark"):
        with _page(browser, scheme) as page:
            page.goto(page_file.as_uri())
            page.locator("h1").wait_for()
            _settle(page)
            _shot(page, out / f"report-{scheme}.webp")
            if scheme == "light":
                for name, words in SECTIONS.items():
                    _section(page, words, out / f"report-{name}.webp")
    with _page(browser, "light", PHONE) as page:
        page.goto(page_file.as_uri())
        page.locator("h1").wait_for()
        _settle(page)
        _shot(page, out / "report-phone.webp")


def _gallery(
    browser: Any, run: Path, cache: Path, images: list[Path], work: Path, out: Path
) -> None:
    page_file = work / "gallery.html"
    made = _agiqa("score", *images, "--run", run, "--top", "1", "--html", page_file)
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    for scheme in ("light", "dark"):
        with _page(browser, scheme) as page:
            page.goto(page_file.as_uri())
            page.locator("#cards li img").first.wait_for()
            _settle(page)
            _shot(page, out / f"gallery-{scheme}.webp")


def _terminal(
    browser: Any, run: Path, cache: Path, images: list[Path], work: Path, out: Path
) -> None:
    """The table as a terminal of 100 columns shows it."""
    from rich.console import Console

    import agiqa
    from agiqa.views.ranking.terminal import print_ranking

    scorer = agiqa.create_scorer(run)
    scores = sorted(scorer(images), key=lambda score: -score.score)
    for score in scores:
        object.__setattr__(score, "image", f"pictures/{Path(score.image).name}")
    console = Console(
        record=True, width=100, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    print_ranking(scores, scorer.run.provenance, console)
    code = "<pre style=\"font: 14px/1.3 'DejaVu Sans Mono', monospace; margin: 0\">{code}</pre>"
    body = console.export_html(inline_styles=True, code_format=code)
    with _page(browser, "dark") as page:
        ground = "background: #15171a; color: #e8e8e5; display: inline-block; padding: 16px"
        page.set_content(f'<div id="all" style="{ground}">{body}</div>')
        _save(page.locator("#all").screenshot(), out / "terminal.webp")


def _app(browser: Any, run: Path, cache: Path, images: list[Path], work: Path, out: Path) -> None:
    from agiqa.cli import COMMANDS

    if "serve" not in COMMANDS:
        print("No `agiqa serve` in this version: the app is left out.")
        return
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(_agiqa("serve", "--run", run, "--port", str(port))) as process:
        try:
            _wait_for(address, process)
            dropped = [images[place] for place in (2, len(images) // 2, -2)][:DROPPED]
            for scheme in ("light", "dark"):
                with _page(browser, scheme) as page:
                    page.goto(address)
                    _settle(page)
                    if scheme == "light":
                        _shot(page, out / "app-empty.webp")
                    page.locator("input[type=file]").first.set_input_files(dropped)
                    page.get_by_text(dropped[0].name).first.wait_for(timeout=300_000)
                    page.wait_for_timeout(2_000)  # maps and neighbours come after the score
                    for waiting in ("Making the map", "Looking for"):
                        page.get_by_text(waiting).first.wait_for(state="hidden", timeout=300_000)
                    _shot(page, out / f"app-{scheme}.webp")
        finally:
            process.terminate()


@contextlib.contextmanager
def _page(browser: Any, scheme: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Iterator[Any]:
    viewport = dict(zip(("width", "height"), size, strict=True))
    page = browser.new_page(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
    try:
        yield page
    finally:
        page.close()


def _settle(page: Any) -> None:
    """Plots and lazily shown pictures are drawn."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1_500)


def _section(page: Any, words: tuple[str, ...], path: Path) -> None:
    """The part of the page under the first heading that holds one of the words, if there is one."""
    for word in words:
        heading = page.locator("h2, h3").filter(has_text=word).first
        if heading.count():
            heading.evaluate("each => each.scrollIntoView({block: 'start'})")
            page.wait_for_timeout(800)
            _shot(page, path)
            return
    print(f"No heading with {' or '.join(words)}: {path.name} is left out.")


def _shot(page: Any, path: Path) -> None:
    _save(page.screenshot(), path)


def _save(picture: bytes, path: Path) -> None:
    """Keep a screenshot, as good as fits."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    for quality in (90, 82, 72, 60, 45):
        image.save(path, "WEBP", quality=quality, method=6)
        if path.stat().st_size < MOST_BYTES:
            return
    raise SystemExit(f"{path}: expected less than {MOST_BYTES:,} bytes even at quality 45.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if process.poll() is not None:
            sys.exit("`agiqa serve` ended before it answered.")
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    sys.exit(f"{address} did not answer within five minutes.")


if __name__ == "__main__":
    try:
        main()
    except AgiqaError as error:
        sys.exit(f"Error: {error}")
