"""Bad images by the dozen, through the command line: the good ones end as rows, each bad one as a
reason."""

import io
import json
import os
import shutil
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agiqa.store import read_pack

IMAGES, BAD = 1000, 100


def picture(number: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def good(number: int) -> tuple[str, bytes]:
    """Suffix and bytes of an image that may look odd and is none the worse for it."""
    if number % 50 == 1:
        return ".jpg", encoded(picture(number, "CMYK"), "JPEG")
    if number % 50 == 2:
        deep = np.random.default_rng(number).integers(0, 65536, (16, 16), dtype=np.uint16)
        return ".png", encoded(Image.fromarray(deep), "PNG")
    if number % 50 == 3:
        frames = [picture(number + 5000 + frame) for frame in range(3)]
        return ".gif", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    if number % 50 == 4:
        return ".jpg", encoded(picture(number), "PNG")  # the bytes count, not the name
    return ".png", encoded(picture(number), "PNG")


def promise(side: int) -> bytes:
    """A PNG of a few dozen bytes whose header says side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def write(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def cut(kind: str, twentieth: int) -> Callable[[Path], object]:
    """Truncated at one of 20 places."""
    whole = encoded(picture(twentieth + 7000).resize((64, 64)), kind)
    return write(whole[: max(1, len(whole) * twentieth // 21)])


def unreadable(path: Path) -> None:
    """A file that may not be read; root may read all, and gets a link that leads to itself."""
    if os.getuid() == 0:
        path.symlink_to(path.name)
    else:
        path.touch(mode=0o000)


def huge(path: Path) -> None:
    """A true image of 81 megapixels, in 10 KB."""
    Image.new("1", (9000, 9000)).save(path)


STRANGERS = [b"a text", b"<svg/>", b"%PDF-1.7", b"PK\3\4", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
KINDS: list[tuple[str, Callable[[Path], object]]] = [
    *[(".png", cut("PNG", twentieth)) for twentieth in range(1, 21)],
    *[(".jpg", cut("JPEG", twentieth)) for twentieth in range(1, 21)],
    *[(".png", write(promise(side))) for side in range(20_000, 30_000, 1000)],
    *[(".png", huge) for _ in range(2)],
    *[(suffix, write(data)) for data in STRANGERS for suffix in (".png", ".jpg")],
    *[(".webp", write(b"")) for _ in range(10)],
    *[(".png", Path.mkdir) for _ in range(8)],
    *[(".jpg", lambda path: path.symlink_to("nowhere.jpg")) for _ in range(5)],
    *[(".png", unreadable) for _ in range(5)],
    *[(".png", os.mkfifo) for _ in range(5)],
    *[(".png", lambda path: None) for _ in range(3)],  # absent
    *[(".tif", write(encoded(Image.new("F", (4, 4)), "TIFF"))) for _ in range(2)],
]
REASONS = {  # and how many of them
    "is truncated": 20,
    "more than the limit": 12,
    "is not an image": 10,
    "is empty": 10,
    "is a folder": 8,
    "is a link to a file that does not exist": 5,
    "is not a regular file": 5,
    "does not exist": 8,  # broken links say so, too
    "whose range is not known": 2,
}


@pytest.fixture
def settings(tiny_lmm: Path) -> list[str]:
    chosen = {"model": tiny_lmm, "name": "tiny", "batch_size": 50}
    chosen |= {"layers": "[1]", "image_size": 32, "closeup": 0, "pool": "[mean]"}
    return ["--only=visual", *(f"--set=visual.{key}={value}" for key, value in chosen.items())]


def lines(text: str) -> Iterator[tuple[str, str]]:
    """Path and reason of each line `Skipped PATH: REASON`."""
    for line in text.splitlines():
        if line.startswith("Skipped "):
            path, _, reason = line.removeprefix("Skipped ").partition(": ")
            yield Path(path).name, reason


def test_a_thousand_images_with_a_hundred_bad_ones(
    tmp_path: Path, settings: list[str], command_line: Callable, count: Callable
) -> None:
    assert len(KINDS) == BAD
    names, bad = [], set()
    for number in range(IMAGES):
        if number % 10 == 7:
            suffix, make = KINDS[number // 10]
            names.append(f"{number:04d}{suffix}")
            bad.add(names[-1])
            make(tmp_path / names[-1])
        else:
            suffix, data = good(number)
            names.append(f"{number:04d}{suffix}")
            (tmp_path / names[-1]).write_bytes(data)
    labels = tmp_path / "labels.csv"
    labels.write_text("file,mos\n" + "".join(f"{n},{r % 5}\n" for r, n in enumerate(names)))
    where, store = ["--cache", str(tmp_path / "cache")], {"AGIQA_STORE": str(tmp_path / "ledger")}
    prepare = ["prepare", "ours", "--from", str(labels), "--image-column=file", *where]
    prepare += ["--score-column=mos"]
    refused = command_line.run("agiqa", prepare, store)
    assert refused["status"] == 1
    assert "100 of 1000 images cannot be used" in refused["err"]
    prepared = command_line.run("agiqa", [*prepare, "--skip-bad"], store)
    assert prepared["status"] == 0, prepared
    listed = dict(lines(prepared["err"]))
    assert listed.keys() == bad
    found = Counter(reason for reason in listed.values())
    for reason, least in REASONS.items():
        assert sum(n for text, n in found.items() if reason in text) >= least, (reason, found)
    about = json.loads((tmp_path / "cache/ours/dataset.json").read_text())
    assert {(each["path"], each["reason"]) for each in about["skipped"]} == set(listed.items())
    done = command_line.run("agiqa", ["extract", "ours", *where, *settings, "--json"], store)
    assert done["status"] == 0, done
    pack = read_pack(tmp_path / "cache/ours/tiny.zarr")
    assert len(pack.image_ids) == json.loads(done["out"])["visual"]["images"] == IMAGES - BAD
    count(images=IMAGES, rows=len(pack.image_ids), reasons=len(listed))


def test_images_that_go_bad_between_prepare_and_extract(
    tmp_path: Path, settings: list[str], command_line: Callable, count: Callable
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    names = [f"{number:02d}.png" for number in range(60)]
    for number, name in enumerate(names):
        (pictures / name).write_bytes(encoded(picture(number), "PNG"))
    where, store = ["--cache", str(tmp_path / "cache")], {"AGIQA_STORE": str(tmp_path / "ledger")}
    prepare = ["prepare", "ours", "--from", str(pictures), *where]
    assert command_line.run("agiqa", prepare, store)["status"] == 0
    ways: list[Callable[[Path], object]] = [
        lambda path: None,  # deleted
        Path.mkdir,
        lambda path: path.symlink_to("nowhere.png"),
        unreadable,
        write(b""),
        cut("PNG", 9),
        write(encoded(picture(99), "PNG")),  # another image
        write(promise(30_000)),
        os.mkfifo,
        write(b"a text"),
    ]
    for number, name in enumerate(names[::2]):
        (pictures / name).unlink()
        ways[number % len(ways)](pictures / name)
    command = ["extract", "ours", *where, *settings]
    refused = command_line.run("agiqa", command, store)
    assert refused["status"] == 1
    assert "the images table is older than what it was made from" in refused["err"]
    assert refused["err"].count("\n") == 1
    done = command_line.run("agiqa", [*command, "--skip-bad"], store)
    assert done["status"] == 0, done
    listed = dict(lines(done["err"]))
    assert sorted(listed) == names[::2]
    assert len(Counter(listed.values())) >= 6
    assert len(read_pack(tmp_path / "cache/ours/tiny.zarr").image_ids) == 30
    count(images=60, rows=30, reasons=len(listed))
    shutil.rmtree(pictures)  # no need of images any more
    assert len(read_pack(tmp_path / "cache/ours/tiny.zarr").image_ids) == 30
