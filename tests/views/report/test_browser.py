"""The report in a real browser, from a file:// path, as its reader has it."""

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from agiqa.views.kit import thumbnails
from agiqa.views.report import write_report
from kit.large_run import GENERATORS, SUBJECTS, large_run

pytestmark = pytest.mark.browser

Opened = Callable[..., Any]  # opens a page in a watched tab

POINTS = "[data-figure=scatter] canvas[data-count]"


@pytest.fixture(scope="module")
def three_thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("large")
    return write_report([large_run(root, 3000)], root / "cache" / "large", root / "report.html")


def open_to_plot(tab: Any, page: Path) -> None:
    """Go to the page, until the main plot has its points."""
    tab.goto(page.as_uri(), wait_until="commit")
    tab.wait_for_selector(POINTS, state="attached", timeout=120_000)


def rows(tab: Any) -> list[int]:
    return [int(each) for each in tab.locator("#gallery li").evaluate_all(
        "all => all.map(each => each.dataset.row)")]  # fmt: skip


def found(tab: Any) -> str:
    text: str = tab.locator("#found").inner_text()
    return text


def errors_of(page: Path) -> pd.DataFrame:
    frame = pd.read_csv(page.parent / "run" / "predictions.csv")
    return frame.assign(error=frame["score"] - frame["mos"]).sort_values("path", ignore_index=True)


def test_the_plot_starts_before_the_pictures_are_parsed(three_thousand: Path) -> None:
    """That is what makes a page of megabytes open at once (seconds are no matter for a test)."""
    html = three_thousand.read_text("utf-8")
    small = [match.start() for match in re.finditer(r'id="picture-\d+"', html)]
    assert len(small) > 20
    assert max(html.index("\nstartGallery();"), html.index("\nstartPlots();")) < min(small)


def test_three_thousand_images_sort_and_filter(three_thousand: Path, opened: Opened) -> None:
    truth = errors_of(three_thousand)
    with opened() as tab:
        open_to_plot(tab, three_thousand)
        tab.wait_for_selector("#gallery img")
        assert tab.locator(POINTS).get_attribute("data-count") == "3000"
        assert found(tab) == "3,000 of 3,000 images"
        assert tab.locator("#gallery li").count() == 60
        worst = truth["error"].abs().sort_values(ascending=False, kind="stable").index[:60]
        np.testing.assert_allclose(  # scores are rounded to three places in the page
            truth["error"].abs()[rows(tab)], truth["error"].abs()[worst], atol=2e-3
        )

        tab.select_option("[name=sort]", "name")
        assert rows(tab) == list(range(60))
        tab.click("#forth")
        assert rows(tab) == list(range(60, 120))
        assert tab.locator("#page").inner_text() == "2 of 50"

        tab.select_option("select[name=generator]", label=GENERATORS[2])
        tab.fill("[name=text]", SUBJECTS[0][2:].upper())
        tab.fill("[name=from]", "2")
        tab.fill("[name=to]", "3")
        wanted = [
            row
            for row in range(3000)
            if row % 6 == 2 and row % 4 == 0 and 2 <= round(round(truth["mos"][row], 3), 2) <= 3
        ]
        assert found(tab) == f"{len(wanted)} of 3,000 images"
        assert rows(tab) == wanted[:60]
        tab.fill("[name=text]", "no such thing")
        assert found(tab) == "0 of 3,000 images"
        assert rows(tab) == []
        tab.click("[type=reset]")
        tab.locator("#found", has_text="3,000 of 3,000").wait_for()


def test_pointing_at_a_point_shows_its_image(three_thousand: Path, opened: Opened) -> None:
    truth = errors_of(three_thousand)
    row = int(truth["error"].abs().idxmax())
    row = int(truth["error"].drop(index=row).idxmin())  # far from the cloud, not shown at first
    with opened(three_thousand) as tab:
        tab.wait_for_selector("#card img")
        plot = tab.locator("[data-figure=scatter] .plot")
        plot.scroll_into_view_if_needed()
        where = plot.evaluate(
            """(plot, [x, y]) => {
              const box = plot.getBoundingClientRect(), size = plot._fullLayout;
              return [box.left + size.xaxis._offset + size.xaxis.c2p(x),
                      box.top + size.yaxis._offset + size.yaxis.c2p(y)];
            }""",
            [float(truth["score"][row]), float(truth["mos"][row])],
        )
        painted = tab.locator(POINTS).evaluate(
            """(canvas, [x, y]) => {
              const box = canvas.getBoundingClientRect(), pen = canvas.getContext("2d");
              const many = canvas.width / box.width;
              return pen.getImageData((x - box.left) * many, (y - box.top) * many, 1, 1).data[3];
            }""",
            where,
        )
        assert painted > 60
        tab.mouse.move(where[0] - 3, where[1])
        tab.mouse.move(*where)
        tab.wait_for_function(
            "name => document.querySelector('#card .from').title === name", arg=truth["path"][row]
        )
        card = tab.locator("#card")
        assert card.locator("img").evaluate("img => img.decode().then(() => img.naturalWidth)") > 0
        figures = f"MOS {truth['mos'][row]:.2f}, score {truth['score'][row]:.2f}"
        assert figures.replace("-", "−") in card.inner_text()
        assert SUBJECTS[row % 4] in card.inner_text()
        assert GENERATORS[row % 6] in card.inner_text()
        assert f"{truth['gate_visual'][row]:.3f}" in card.inner_text()
        tab.mouse.click(*where)
        assert truth["path"][row] in tab.locator("#detail").inner_text()
        tab.keyboard.press("Escape")
        tab.locator("[data-figure=scatter] .legendtoggle").first.click()
        tab.wait_for_function(
            "selector => document.querySelector(selector).dataset.count === '2500'", arg=POINTS
        )


def test_keys_alone_reach_plot_images_and_dialog(three_thousand: Path, opened: Opened) -> None:
    by_score = errors_of(three_thousand).sort_values("score")["path"].tolist()
    with opened(three_thousand) as tab:
        tab.wait_for_selector("#card img")
        shown = tab.locator("#card .from").get_attribute("title")
        tab.focus("[data-figure=scatter] .plot")
        step = "ArrowRight" if by_score.index(shown) < 2000 else "ArrowLeft"
        tab.keyboard.press(step)
        after = tab.locator("#card .from").get_attribute("title")
        assert abs(by_score.index(after) - by_score.index(shown)) <= 2  # ties as rounded
        assert after != shown
        tab.keyboard.press("Enter")
        assert after in tab.locator("#detail").inner_text()
        tab.keyboard.press("Escape")
        assert not tab.locator("#detail").is_visible()
        tab.focus("#gallery button")
        tab.keyboard.press("Enter")
        assert tab.locator("#detail-place").inner_text() == "1 of 3,000"
        tab.keyboard.press("ArrowRight")
        assert tab.locator("#detail-place").inner_text() == "2 of 3,000"


def test_filters_that_the_browser_kept_find_their_pictures(
    three_thousand: Path, opened: Opened
) -> None:
    with opened(three_thousand) as tab:
        tab.select_option("select[name=sort]", "name")
        tab.goto("about:blank")
        tab.go_back()
        tab.wait_for_selector("#gallery img")
        assert tab.locator("select[name=sort]").input_value() == "name"
        assert rows(tab)[:3] == [0, 1, 2]
        assert tab.locator("#gallery .absent").count() == 0


def test_a_click_on_a_generators_residuals_shows_its_images(
    three_thousand: Path, opened: Opened
) -> None:
    with opened(three_thousand) as tab:
        tab.locator("[data-figure=by-generator]").scroll_into_view_if_needed()
        dots = "[data-figure=by-generator] .scatterlayer .trace:last-child .point"
        tab.wait_for_selector(dots)
        box = tab.locator(dots).first.bounding_box()
        place = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tab.mouse.move(*place)
        tab.wait_for_selector("[data-figure=by-generator] .hovertext")
        tab.mouse.click(*place)
        tab.locator("#found", has_text="500 of").wait_for()
        assert tab.locator("select[name=generator]").input_value() != ""


def test_pointing_at_the_navigation_moves_nothing(three_thousand: Path, opened: Opened) -> None:
    with opened(three_thousand) as tab:
        for link in tab.locator("nav a").all():
            before = link.bounding_box()
            link.hover()
            assert link.bounding_box() == before
            assert "underline" in link.evaluate("each => getComputedStyle(each).textDecorationLine")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_on_a_phone(three_thousand: Path, opened: Opened, scheme: str) -> None:
    with opened(three_thousand, viewport={"width": 390, "height": 844}, color_scheme=scheme) as tab:
        tab.wait_for_selector("#gallery img")
        wide = "document.documentElement.scrollWidth - innerWidth"
        assert tab.evaluate(wide) <= 0
        ground, words = tab.evaluate(
            """() => [getComputedStyle(document.body).backgroundColor,
              document.querySelector('[data-figure=scatter] .xtick text').style.fill]"""
        )
        bright = [np.mean([int(x) for x in re.findall(r"\d+", c)[:3]]) for c in (ground, words)]
        assert (bright[0] > bright[1]) == (scheme == "light")
        tab.click("#theme")
        tab.wait_for_timeout(200)
        after = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert after != ground
        for each in tab.locator("figure.drawn").all():
            each.scroll_into_view_if_needed()
        tab.wait_for_function(  # a function: the page's policy has no eval for each look at it
            "() => [...document.querySelectorAll('figure.drawn:not([hidden]) .plot')]"
            ".every(plot => plot.querySelector('.main-svg'))"
        )
        assert tab.evaluate(wide) <= 0


def test_maps_reasons_and_neighbours_stand_in_the_detail(root: Path, opened: Opened) -> None:
    tested = pd.read_csv(root / "run" / "predictions.csv").query("model == 'moe'")
    paths = sorted(tested["path"].unique())
    folder = root / "run" / "explanations"
    (folder / "maps").mkdir(parents=True)
    Image.new("RGB", (40, 24), "orange").save(folder / "maps" / "one.png")
    reason = {"aspect": "hands", "text": "hands look <b>odd</b>", "answer": 0.125,
              "percentile": 2.5, "strength": 1.75}  # fmt: skip
    near = {"path": paths[1], "mos": 1.4, "score": 1.6, "similarity": 0.93}
    explained = {
        "images": {
            path: {"overlay": "maps/one.png", "reasons": [reason], "neighbours": [near]}
            for path in paths[:5]
        },
        "reasons_validity": [
            {"aspect": "hands", "rho_mos": 0.41, "rho_residual": -0.12, "low": 0.35, "high": 0.47}
        ],
        "deletion": {"area": 0.1234},
    }
    (folder / "explanations.json").write_text(json.dumps(explained), "utf-8")
    page = write_report([root / "run"], root / "cache" / "tiny", root / "report.html")
    with opened(page) as tab:
        tab.wait_for_selector("#gallery img")
        tab.check("[name=explained]")
        assert found(tab) == f"5 of {len(paths)} images"
        tab.locator("#gallery button").first.click()
        detail = tab.locator("#detail")
        assert "hands look <b>odd</b>" in detail.inner_text()
        assert "answer 0.13, percentile 2.5, strength 1.75" in detail.inner_text()
        assert "rated 1.40, score 1.60, alike 0.93" in detail.inner_text()
        assert detail.locator(".pictures img").count() == 2
        assert detail.locator(".pictures img").last.evaluate("img => img.naturalWidth") == 40
        detail.locator(".neighbours button").click()
        assert paths[1] in detail.inner_text()
        text = tab.locator("main").inner_text()
        assert "+0.41" in text
        assert "0.1234" in text


def test_a_pdf_has_every_plot_and_whole_tables(three_thousand: Path, opened: Opened) -> None:
    with opened(three_thousand, color_scheme="dark") as tab:
        tab.wait_for_selector("#gallery img")
        looks = """() => ({
          blank: [...document.querySelectorAll('figure.drawn:not([hidden]) .plot')]
            .filter(plot => !plot.querySelector('.main-svg')).length,
          wide: [...document.querySelectorAll('.scroll, .plot')]
            .filter(box => box.scrollWidth > box.clientWidth + 1).length,
          ground: getComputedStyle(document.body).backgroundColor,
        })"""
        before = tab.evaluate(looks)
        assert before["blank"] > 0  # figures are drawn when they come near the window
        tab.evaluate(  # registered after the page's own: sees what goes on paper
            f"() => addEventListener('beforeprint', () => {{ window.printed = ({looks})(); }})"
        )
        assert tab.pdf().startswith(b"%PDF")
        printed = tab.evaluate("window.printed")
        assert (printed["blank"], printed["wide"]) == (0, 0)
        assert printed["ground"] == "rgb(253, 253, 252)"
        assert tab.evaluate(looks)["ground"] == before["ground"]


@pytest.mark.slow
def test_twenty_thousand_images_stay_under_thirty_megabytes(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Noise costs a WebP more bytes than a photograph does.
    run = large_run(tmp_path, 20_000, distinct=30, noise=25, side=64)
    decode, webp = functools.cache(thumbnails.decode), thumbnails.webp  # of few files, once each
    made: dict[tuple[int, int], bytes] = {}

    def remembered(image: Image.Image, side: int) -> bytes:
        key = id(image), side
        if key not in made:
            made[key] = webp(image, side)
        return made[key]

    monkeypatch.setattr(thumbnails, "decode", lambda file: decode(file.resolve()))
    monkeypatch.setattr(thumbnails, "webp", remembered)
    page = write_report([run], tmp_path / "cache" / "large", tmp_path / "report.html")
    assert 15_000_000 < page.stat().st_size < 30_000_000
    with opened() as tab:
        open_to_plot(tab, page)
        tab.wait_for_selector("#gallery img", timeout=120_000)
        assert tab.locator(POINTS).get_attribute("data-count") == "20000"
        assert found(tab) == "20,000 of 20,000 images"
        tab.select_option("[name=sort]", "mos-up")  # while small pictures still come
        tab.locator("#gallery img").nth(59).wait_for(state="attached", timeout=120_000)
        assert tab.locator("#gallery img").count() == 60
