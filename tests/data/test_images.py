import hashlib
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageOps

from agiqa.data import images
from agiqa.data.image_formats import FORMATS
from agiqa.data.images import (
    BadImage,
    ImageError,
    check_images,
    decode,
    fit_for_square,
    image_id,
    resize_bicubic,
)
from agiqa.runs.explain.maps import QualityMap
from agiqa.stage1.mplug_owl2.processing import square
from agiqa.views.kit.thumbnails import LARGE, SIDES, webp
from kit.serving_files import png


def pixels(image: Image.Image) -> npt.NDArray[np.int16]:
    return np.asarray(image).astype(np.int16)


def reason(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        decode(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value.reason


# What is handled; what becomes of each kind of pixels is in test_image_pixels.py


def test_png_comes_back_to_the_bit(photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "a.png")
    decoded = decode(tmp_path / "a.png")
    assert decoded.mode == "RGB"
    assert (pixels(decoded) == pixels(photo)).all()


@pytest.mark.parametrize("suffix", ["jpg", "webp", "bmp", "tiff", "ppm", "gif"])
def test_other_formats_are_close(photo: Image.Image, tmp_path: Path, suffix: str) -> None:
    photo.save(tmp_path / f"a.{suffix}")
    decoded = decode(tmp_path / f"a.{suffix}")
    assert (decoded.mode, decoded.size) == ("RGB", photo.size)
    assert np.abs(pixels(decoded) - pixels(photo)).mean() < 8


def test_every_suffix_that_folders_are_searched_for_is_a_format_that_is_read() -> None:
    Image.init()
    for suffix in images.IMAGE_SUFFIXES:
        assert Image.EXTENSION[suffix] in FORMATS


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_animations_give_their_first_frame(tmp_path: Path, suffix: str) -> None:
    red, blue = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    red.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[blue], lossless=True)
    assert pixels(decode(tmp_path / f"a.{suffix}"))[8, 8].tolist() == [255, 0, 0]


def test_damaged_exif_is_ignored(photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff nonsense")
    assert (pixels(decode(tmp_path / "a.png")) == pixels(photo)).all()


def test_non_ascii_name(photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "Größe 猫 é.png")
    assert decode(tmp_path / "Größe 猫 é.png").size == photo.size


# What is refused


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tiff", "bmp"])
@pytest.mark.parametrize("twentieth", range(20))
def test_truncated(photo: Image.Image, tmp_path: Path, suffix: str, twentieth: int) -> None:
    stored = io.BytesIO()
    photo.save(stored, Image.registered_extensions()[f".{suffix}"])
    whole = stored.getvalue()
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(whole[: 1 + (len(whole) - 40) * twentieth // 20])
    assert reason(path).startswith(("is truncated", "is damaged", "is not an image"))


def test_truncated_progressive_jpeg(photo: Image.Image, tmp_path: Path) -> None:
    stored = io.BytesIO()
    photo.save(stored, "JPEG", progressive=True)
    (tmp_path / "a.jpg").write_bytes(stored.getvalue()[:-200])
    assert reason(tmp_path / "a.jpg").startswith("is truncated")


def test_no_image_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.touch()
    assert reason(path) == "is empty (0 bytes)"
    path.write_text("once upon a time " * 99)
    assert reason(path).startswith("is not an image")
    Image.new("RGB", (8, 8)).save(path, "EPS")  # a format that starts other programs
    assert reason(path).startswith("is not an image")


def test_absent_folder_broken_link_loop_pipe(tmp_path: Path) -> None:
    assert reason(tmp_path / "a.png") == "does not exist"
    (tmp_path / "b.png").mkdir()
    assert reason(tmp_path / "b.png") == "is a folder, not an image file"
    (tmp_path / "c.png").symlink_to("nowhere.png")
    assert reason(tmp_path / "c.png") == "is a link to a file that does not exist"
    (tmp_path / "d.png").symlink_to("d.png")
    assert reason(tmp_path / "d.png").startswith("cannot be read: ")
    os.mkfifo(tmp_path / "e.png")
    assert reason(tmp_path / "e.png") == "is not a regular file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable(photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    assert reason(tmp_path / "a.png") == "cannot be read: permission denied"
    with pytest.raises(ImageError, match="cannot be read"):
        image_id(tmp_path / "a.png")


@pytest.mark.parametrize("side", [8_001, 12_000, 60_000])  # below, within, above Pillow's limits
def test_decompression_bomb(tmp_path: Path, side: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(side, side, rows=1))
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        assert reason(path).startswith(f"has {side} x {side} pixels, more than the limit")
    assert leaked == []
    assert limit == Image.MAX_IMAGE_PIXELS


def test_name_that_is_not_utf8_can_be_printed(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    with pytest.raises(ImageError) as caught:
        decode(path)
    assert "caf\\udce9.png" in str(caught.value).encode("utf-8").decode()


# Hash and check


def test_image_id_is_the_hash_of_the_bytes(photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(data)
    assert image_id(tmp_path / "a.png") == hashlib.sha256(data).hexdigest()
    assert image_id(tmp_path / "a.png") == image_id(tmp_path / "b.png")


@pytest.mark.parametrize("workers", [1, 8, None])
def test_check_lists_the_bad_ones_in_order(
    write_images: Callable[..., Path], workers: int | None
) -> None:
    folder = write_images(*(f"{number:02d}.png" for number in range(30)))
    (folder / "21.png").write_bytes(b"")
    (folder / "04.png").unlink()
    paths = [*sorted(folder.iterdir()), folder / "04.png"]
    assert check_images(paths, workers) == [
        BadImage(str(folder / "21.png"), "is empty (0 bytes)"),
        BadImage(str(folder / "04.png"), "does not exist"),
    ]


def test_check_of_nothing() -> None:
    assert check_images([], 2) == []


# Narrow and large images through all that shrinks them


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (3, 600), (32_768, 164)])
def test_narrow_images_have_sides_everywhere(size: tuple[int, int]) -> None:
    image = Image.linear_gradient("L").resize(size).convert("RGB")
    for side in (SIDES[-1], LARGE):
        small = Image.open(io.BytesIO(webp(image, side)))
        assert max(small.size) == min(side, max(size))
        assert min(small.size) >= 1
    assert ImageOps.fit(image, (192, 192)).size == (192, 192)  # as on the terminal
    assert resize_bicubic(np.asarray(image), 32).shape == (32, 32, 3)
    quality = QualityMap(np.eye(4, dtype=np.float32), "")
    assert quality.overlay(fit_for_square(image)).size[0] >= 1
    assert square(image, 32).shape == (3, 32, 32)


def test_a_long_strip_is_padded_to_no_square_beyond_the_limit() -> None:
    assert fit_for_square(Image.new("RGB", (32_768, 164))).size == (8_000, 40)
    assert fit_for_square(Image.new("RGB", (8_000, 10))).size == (8_000, 10)


def test_resizing_is_that_of_all_channels_at_once(photo: Image.Image) -> None:
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(pixels, (32, 32), mode="bicubic", antialias=False)
    expected = small[0].permute(1, 2, 0).round().clamp(0, 255).numpy()
    assert (resize_bicubic(np.asarray(photo), 32) == expected).all()
