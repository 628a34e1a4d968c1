"""The gallery in a real browser at 1,000 images: opens, sorts, filters, by keyboard, offline."""

from pathlib import Path

import pytest
from PIL import Image

from agiqa.views.ranking.page import write_gallery

IMAGES = 1_000

pytestmark = pytest.mark.browser


def test_a_thousand_images_sort_and_filter(
    tmp_path: Path, ranked, provenance, opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = []
    for colour in range(30):  # byte-identical files are enough: the page knows names and scores
        Image.new("RGB", (64, 64), (8 * colour, 0, 90)).save(tmp_path / f"{colour}.png")
    for number in range(IMAGES):
        file = tmp_path / ("odd" if number % 2 else "even") / f"picture {number:04d}.png"
        if number == 7:
            file = Path("=picture 0007.png")
        file.parent.mkdir(exist_ok=True)
        file.symlink_to(tmp_path / f"{number % 30}.png")
        files.append(file)
    page_file = write_gallery(ranked(files), "runs/tiny", provenance, tmp_path / "page.html")
    with opened(page_file) as page:
        page.wait_for_selector("#cards li img")
        first = page.locator("#cards li").first
        assert "picture 0000.png" in first.inner_text()
        assert "All 1,000 images" in page.inner_text("#count")
        page.select_option("#sort", "worst first")
        assert "picture 0999.png" in first.inner_text()
        page.select_option("#sort", "weight of coherence")
        assert first.inner_text().startswith("1.00")
        page.fill("#name", "picture 012")
        assert "10 of 1,000 images" in page.inner_text("#count")
        page.select_option("#folder", label=str(tmp_path / "odd"))
        assert "5 of 1,000" in page.inner_text("#count")
        page.click("#reset")
        page.fill("#from", "4.9")
        for limit, digits in (("4.9", 2), ("4.900", 3)):  # 4.895 is shown as 4.90, though below it
            page.fill("#from", limit)
            shown = sum(
                round(round(5 - 4 * n / (IMAGES - 1), 4), digits) >= 4.9 for n in range(IMAGES)
            )
            assert f"{shown} of 1,000" in page.inner_text("#count")
        page.click("#reset")
        tallest = page.locator("#histogram button").nth(20)
        tallest.click()  # a bar's own images, whatever the rounded limits beside it say
        bar = tallest.get_attribute("title").split(": ")[1].split()[0]
        assert f"{bar} of 1,000" in page.inner_text("#count")
        page.click("#reset")
        page.select_option("#sort", "best first")
        page.focus("#cards li button")
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowRight")
        assert "picture 0001.png" in page.inner_text("#details-name")
        assert "4.996" in page.inner_text("#details-figures")
        page.keyboard.press("Escape")
        page.locator("#cards li button:focus", has_text="picture 0001").wait_for()
        with page.expect_download() as download:
            page.click("#csv")
        lines = Path(download.value.path()).read_text().splitlines()
        assert lines[0].startswith("image,score,low,high,disagreement,gate_visual")
        assert len(lines) == IMAGES + 1
        assert any(line.startswith("'=picture 0007.png,") for line in lines)  # no formula
