from collections.abc import Callable
from pathlib import Path

import pytest

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets import folder


def test_recursive_sorted_unlabelled(write_images: Callable[..., Path]) -> None:
    root = write_images("b.JPG", "a/z.png", "a/é.webp", ".hidden/c.png", "a/._z.png", "B.png")
    (root / "notes.txt").write_text("not an image, nor called one")
    (root / "folder.png").mkdir()
    table = folder.prepare(root)
    assert table.frame["path"].tolist() == ["B.png", "a/z.png", "a/é.webp", "b.JPG"]
    assert table.name == "images"
    assert table.targets == ()
    assert (table.frame[["prompt", "group", "generator"]] == "").all(axis=None)
    assert folder.prepare(root, "mine").name == "mine"


def test_bad_ones_are_listed(write_images: Callable[..., Path]) -> None:
    root = write_images("a.png")
    (root / "b.png").write_text("text")
    (root / "c.png").symlink_to("nowhere")
    with pytest.raises(AgiqaError, match=r"2 of 3 .* b.png is not an image.*c.png is a link"):
        folder.prepare(root)
    assert folder.prepare(root, skip_bad=True).frame["path"].tolist() == ["a.png"]


def test_byte_identical_files_share_their_id(write_images: Callable[..., Path]) -> None:
    root = write_images("a.png", "b.png")
    (root / "copy of a.png").write_bytes((root / "a.png").read_bytes())
    ids = folder.prepare(root).frame.set_index("path")["image_id"]
    assert ids["a.png"] == ids["copy of a.png"] != ids["b.png"]


def test_missing_or_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(AgiqaError, match="expected a folder of images, found none"):
        folder.prepare(tmp_path / "gone")
    with pytest.raises(AgiqaError, match=r"expected images \(.jpg .* in it or below, found none"):
        folder.prepare(tmp_path)
