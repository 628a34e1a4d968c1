import hashlib
import io
import os
import struct
import warnings
import zlib
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
from agiqa.runs.explain.quality_map import QualityMap
from agiqa.stage1.mplug_owl2.processing import square
from agiqa.views.kit.thumbnails import LARGE, SIDES, webp


def pixels(image: Image.Image) -> npt.NDArray[np.int16]:
    return np.asarray(image).astype(np.int16)


def reason(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        decode(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value.reason


def bomb(path: Path, side: int) -> Path:
    """A PNG of a few hundred bytes whose header promises side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


# What is handled


def test_png_comes_back_to_the_bit(photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "a.png")
    decoded = decode(tmp_path / "a.png")
    assert decoded.mode == "RGB"
    assert (pixels(decoded) == pixels(photo)).all()


@pytest.mark.parametrize("suffix", ["jpg", "webp", "bmp", "tiff", "ppm", "jp2", "gif"])
def test_other_formats_are_close(photo: Image.Image, tmp_path: Path, suffix: str) -> None:
    photo.save(tmp_path / f"a.{suffix}")
    decoded = decode(tmp_path / f"a.{suffix}")
    assert (decoded.mode, decoded.size) == ("RGB", photo.size)
    assert np.abs(pixels(decoded) - pixels(photo)).mean() < 8


def test_every_suffix_that_folders_are_searched_for_is_a_format_that_is_read() -> None:
    Image.init()
    for suffix in images.IMAGE_SUFFIXES:
        assert Image.EXTENSION[suffix] in FORMATS


def test_cmyk_jpeg(photo: Image.Image, tmp_path: Path) -> None:
    photo.convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(pixels(decode(tmp_path / "a.jpg")) - pixels(photo)).mean() < 4


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    deep = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / f"a.{suffix}")
    decoded = np.asarray(decode(tmp_path / f"a.{suffix}"))
    assert decoded[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert (decoded[..., 0] == decoded[..., 2]).all()


def test_16_bit_rgb_png(tmp_path: Path) -> None:
    row = struct.pack(">3H3H", 0, 32768, 65535, 65535, 256, 513)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" + row))
        + chunk(b"IEND", b"")
    )
    assert np.asarray(decode(tmp_path / "a.png")).tolist() == [[[0, 128, 255], [255, 1, 2]]]


def test_palette_with_and_without_a_transparent_colour(photo: Image.Image, tmp_path: Path) -> None:
    palette = photo.quantize(64)
    palette.save(tmp_path / "opaque.png")
    assert (pixels(decode(tmp_path / "opaque.png")) == pixels(palette.convert("RGB"))).all()
    index = palette.getpixel((0, 0))
    palette.save(tmp_path / "hole.png", transparency=index)
    hole = np.asarray(palette) == index
    decoded = pixels(decode(tmp_path / "hole.png"))
    assert (decoded[hole] == 255).all()
    assert (decoded[~hole] == pixels(palette.convert("RGB"))[~hole]).all()
    palette.save(tmp_path / "soft.png", transparency=bytes([128] * 64))
    expected = (pixels(palette.convert("RGB")) * (128 / 255)) + 255 * (127 / 255)
    assert np.abs(pixels(decode(tmp_path / "soft.png")) - expected).max() <= 1


@pytest.mark.parametrize(("mode", "value"), [("RGBA", (200, 0, 0, 0)), ("LA", (9, 0))])
def test_transparent_is_white_whatever_colour_hides_in_it(
    tmp_path: Path, mode: str, value: tuple[int, ...]
) -> None:
    Image.new(mode, (4, 4), value).save(tmp_path / "a.png")
    assert (pixels(decode(tmp_path / "a.png")) == 255).all()


def test_half_transparent_is_mixed_with_white(tmp_path: Path) -> None:
    Image.new("RGBA", (1, 1), (100, 0, 255, 128)).save(tmp_path / "a.png")
    assert np.abs(pixels(decode(tmp_path / "a.png"))[0, 0] - [177, 127, 255]).max() <= 1


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_animations_give_their_first_frame(tmp_path: Path, suffix: str) -> None:
    red, blue = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    red.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[blue], lossless=True)
    assert pixels(decode(tmp_path / f"a.{suffix}"))[8, 8].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((20, 30, 3), dtype=np.uint8)
    upright[:10, :15] = 255  # white where the picture's top left is
    undo = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(undo)).save(tmp_path / "a.png", exif=exif)
    assert (np.asarray(decode(tmp_path / "a.png")) == upright).all()


def test_damaged_exif_is_ignored(photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff nonsense")
    assert (pixels(decode(tmp_path / "a.png")) == pixels(photo)).all()


def test_one_bit_image(tmp_path: Path) -> None:
    Image.new("1", (4, 4), 1).save(tmp_path / "a.png")
    assert (pixels(decode(tmp_path / "a.png")) == 255).all()


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


def test_zero_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert reason(tmp_path / "a.png") == "is empty (0 bytes)"


def test_text_named_png(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("once upon a time " * 99)
    assert reason(tmp_path / "a.png").startswith("is not an image")


def test_formats_that_start_other_programs_are_not_opened(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "real.eps")
    (tmp_path / "real.eps").rename(tmp_path / "a.png")
    assert reason(tmp_path / "a.png").startswith("is not an image")


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
    path = bomb(tmp_path / "a.png", side)
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        assert reason(path).startswith(f"has {side} x {side} pixels, more than the limit")
    assert leaked == []
    assert limit == Image.MAX_IMAGE_PIXELS


def test_float_pixels_are_refused_with_advice(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "a.tiff")
    assert reason(tmp_path / "a.tiff").startswith("has floating-point 32-bit pixels")
    assert "save it as 8-bit RGB" in reason(tmp_path / "a.tiff")


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
    quality = QualityMap(np.eye(4, dtype=np.float32), (0.25, 0.25, 0.75, 0.75), "")
    assert quality.overlay(fit_for_square(image), legend=False).size[0] >= 1
    assert square(image, 32).shape == (3, 32, 32)


def test_a_long_strip_is_padded_to_no_square_beyond_the_limit() -> None:
    assert fit_for_square(Image.new("RGB", (32_768, 164))).size == (8_000, 40)
    assert fit_for_square(Image.new("RGB", (8_000, 10))).size == (8_000, 10)


def test_resizing_is_that_of_all_channels_at_once(photo: Image.Image) -> None:
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(pixels, (32, 32), mode="bicubic", antialias=False)
    expected = small[0].permute(1, 2, 0).round().clamp(0, 255).numpy()
    assert (resize_bicubic(np.asarray(photo), 32) == expected).all()
