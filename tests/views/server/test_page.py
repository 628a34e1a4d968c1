"""The page in a real browser: what people drop, see and press."""

import io
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.browser


@pytest.fixture
def page(opened: Callable[..., Any], served: Any) -> Iterator[Any]:
    """The page, opened, and watched."""
    with opened(served.url) as page:
        _ready(page)
        yield page


def _ready(page: Any) -> None:
    """Wait until it knows what it serves."""
    page.wait_for_function("() => document.getElementById('run-name').textContent !== ''")


def _png(seed: int, size: tuple[int, int] = (48, 64)) -> bytes:
    pixels = np.random.default_rng([seed, time.time_ns()]).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _drop(page: Any, *files: tuple[str, bytes]) -> None:
    """Drop files on the page as a file manager would."""
    transfer = page.evaluate_handle(
        """(files) => {
            const transfer = new DataTransfer();
            for (const [name, bytes] of files)
                transfer.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
            return transfer;
        }""",
        [[name, list(content)] for name, content in files],
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})


def _scored(page: Any, count: int) -> list[float]:
    """The scores in the table's order, once there are so many."""
    page.wait_for_function(
        "(count) => document.querySelectorAll('#rows td.score').length === count"
        " && document.getElementById('progress').hidden",
        arg=count,
    )
    return [float(text) for text in page.locator("#rows td.score").all_inner_texts()]


def test_three_dropped_images_are_scored_ranked_and_explained(page: Any, tmp_path: Path) -> None:
    _drop(page, *((f"picture {n}.png", _png(n)) for n in range(3)))
    scores = _scored(page, 3)
    assert scores == sorted(scores, reverse=True)
    assert page.locator("#detail .big").inner_text().startswith(f"{scores[0]:.2f}")  # the best
    assert page.locator("#rows img.thumb").count() == 3
    facts = page.evaluate("fetch('/api/v1/run').then((answer) => answer.json())")
    page.wait_for_function("() => !document.querySelector('#detail .waiting')")
    assert facts["explanations"]["maps"] == ""  # no reason why there should be none
    assert page.locator("#detail img[alt*='quality map']").count() == 1
    page.get_by_role("button", name="Image", exact=True).click()
    assert page.locator("#detail img[alt*='quality map']").count() == 0
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    download.value.save_as(tmp_path / "scores.csv")
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert lines[0].startswith("rank,image,score,low,high,disagreement,gate_visual")
    assert lines[0].endswith(",trained_on,held_out,target,image_id")
    assert [line.split(",")[-4:-1] for line in lines[1:]] == [["no", "", "quality"]] * 3
    assert [float(line.split(",")[2]) for line in lines[1:]] == pytest.approx(scores, abs=0.006)


def test_what_is_no_picture_is_named_and_the_rest_scored(page: Any, served: Any) -> None:
    before = served.resident
    huge = b"\x89PNG\r\n\x1a\n" + bytes(16)
    _drop(page, ("<b>text</b>.png", b"no image"), ("cut.png", _png(1)[:500]), ("good.png", _png(2)))
    _scored(page, 1)
    refused = page.locator("#refused-list").inner_text()
    assert "<b>text</b>.png: is not an image" in refused  # as text, not as markup
    assert "cut.png: is" in refused
    page.evaluate(  # made in the page: 200 MB need not come through the test
        """(head) => {
            const transfer = new DataTransfer();
            const parts = [new Uint8Array(head), new Uint8Array(200 * 1024 * 1024)];
            transfer.items.add(new File(parts, "huge.png"));
            const event = new DragEvent("drop", {dataTransfer: transfer, bubbles: true});
            document.getElementById("drop").dispatchEvent(event);
        }""",
        list(huge),
    )
    page.get_by_text("huge.png: is 200 MiB, more than the limit of 4 MiB").wait_for()
    assert served.resident - before < 100e6


def test_twenty_images_sort_filter_and_keep_their_names(page: Any) -> None:
    _drop(page, *((f"{n:02d}.png", _png(n, (24, 32))) for n in range(20)))
    scores = _scored(page, 20)
    assert scores == sorted(scores, reverse=True)
    page.get_by_role("button", name="Score").click()
    assert _scored(page, 20) == sorted(scores)
    page.get_by_role("button", name="Name", exact=True).click()
    names = page.locator("#rows td.name").all_inner_texts()
    assert names == [f"{n:02d}.png" for n in range(20)]
    page.get_by_placeholder("contains …").fill("4")
    assert page.locator("#rows tr").count() == 2
    page.get_by_placeholder("contains …").fill("")
    for lowest, highest in ((sorted(scores)[12], None), (None, sorted(scores)[7])):
        page.get_by_label("Lowest score shown").fill("" if lowest is None else f"{lowest:.2f}")
        page.get_by_label("Highest score shown").fill("" if highest is None else f"{highest:.2f}")
        shown = [s for s in scores if s >= (lowest or s) and s <= (highest or s)]  # ends included
        assert len(shown) >= 8
        assert page.locator("#shown").inner_text().startswith(f"{len(shown)} of 20 images")
        assert page.locator("#rows tr").count() == len(shown)
    page.get_by_role("button", name="Clear").click()
    assert page.locator("#work").is_hidden()


def test_a_chosen_folder_is_ranked(page: Any, workspace: Path) -> None:
    page.locator("#folder").set_input_files(workspace / "images")
    _scored(page, 40)
    assert re.search(r"was in training; held out \d\.\d\d", page.locator("#rows").inner_text())
    assert "its score is optimistic" in page.locator("#detail").inner_text()
    page.wait_for_function(
        "() => [...document.querySelectorAll('img.thumb')].some((each) => each.naturalWidth > 0)"
    )


def test_by_keyboard_alone(page: Any) -> None:
    _drop(page, *((f"{n}.png", _png(n)) for n in range(3)))
    _scored(page, 3)
    page.keyboard.press("Tab")
    seen = set()
    for _ in range(40):  # to the first row, past everything else that can be pressed
        inside = page.evaluate("!!document.activeElement.closest('#rows')")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        if inside:
            break
        page.keyboard.press("Tab")
    assert inside
    assert {"choose", "choose-folder", "prompt", "filter-name", "download"} <= seen
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    second = page.locator("#rows tr").nth(1)
    assert second.get_attribute("aria-selected") == "true"
    assert page.locator("#detail h2").inner_text() == second.locator("td.name").inner_text()


def test_light_dark_and_a_phone_show_all_of_it(opened: Callable[..., Any], served: Any) -> None:
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 390)):
        viewport = {"width": width, "height": 800}
        with opened(served.url, color_scheme=scheme, viewport=viewport) as page:
            _ready(page)
            long = "a long name that has to break somewhere.png"
            _drop(page, (long, _png(1)), ("b.png", _png(2)))
            _scored(page, 2)
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, (scheme, width)
            colours = page.evaluate(
                "['color', 'backgroundColor'].map((each) => getComputedStyle(document.body)[each])"
            )
            light = [sum(json.loads(f"[{c[4:-1]}]")) for c in colours]
            assert (light[0] < light[1]) == (scheme == "light")


def test_the_api_page_is_drawn_offline(opened: Callable[..., Any], served: Any) -> None:
    with opened(served.url) as page:
        page.goto(f"{served.url}/docs")
        page.get_by_text("/api/v1/scores").first.wait_for()
