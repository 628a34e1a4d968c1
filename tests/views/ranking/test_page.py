"""The gallery as a file: whole, escaped, within its size."""

import base64
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

from PIL import Image

from agiqa.views.ranking.page import write_gallery


def content_of(page: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="content">(.*?)</script>', page)
    content: dict[str, Any] = json.loads(found)
    return content


def test_the_page_holds_every_score_and_picture(
    tmp_path: Path, write_images, ranked, provenance
) -> None:
    folder = write_images("a.png", "sub/b.png", "c</script><b>.png")
    files = [folder / "a.png", folder / "sub/b.png", folder / "c</script><b>.png"]
    (folder / "sub/b.png").write_bytes(b"no image any more")
    out = write_gallery(ranked(files), "run", provenance, tmp_path / "new/page.html")
    page = out.read_text()
    assert "c</script>" not in page
    content = content_of(page)
    rows = content["rows"]
    assert [row[0] for row in rows] == [str(file) for file in files]
    assert [row[1] for row in rows] == [5.0, 3.0, 1.0]
    assert rows[0][5] == [0.8, 0.1, 0.1]
    assert [bool(row[6]) for row in rows] == [True, False, True]
    assert Image.open(io.BytesIO(base64.b64decode(rows[0][6]))).size == (32, 24)
    assert content["scale"] == {"low": 1.0, "high": 5.0}


def test_the_policy_names_what_stands_in_the_page(
    tmp_path: Path, write_images, ranked, provenance
) -> None:
    files = [write_images("a.png") / "a.png"]
    page = write_gallery(ranked(files), "run", provenance, tmp_path / "page.html").read_text()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy.startswith("default-src 'none'; img-src data:;")
    for element in ("style", "script"):
        (text,) = re.findall(f"<{element}>(.*?)</{element}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", page)


def test_where_there_is_no_room_the_middle_has_no_pictures(
    tmp_path: Path, write_images, ranked, provenance, monkeypatch
) -> None:
    from agiqa.views.ranking import page

    folder = write_images(*(f"{n}.png" for n in range(7)))
    files = [folder / f"{n}.png" for n in range(7)]
    whole = write_gallery(ranked(files), "run", provenance, tmp_path / "p.html").read_text()
    needed = sum(len(row[6]) for row in content_of(whole)["rows"])
    monkeypatch.setattr(page, "SIZE", 5 * needed // 7)
    text = write_gallery(ranked(files), "run", provenance, tmp_path / "p.html").read_text()
    pictures = [bool(row[6]) for row in content_of(text)["rows"]]
    assert pictures == [True, True, False, False, False, True, True]
    assert "3 images between are listed without one" in text
