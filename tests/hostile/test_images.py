"""Image files made to keep a decoder busy, to fill memory, or to be read where they are no files.

Each ends in one line, through `prepare`, within seconds and memory that hold; bombs that say so in
their header before anything is unpacked.
"""

import io
import os
import resource
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import agiqa
from agiqa.data.image_formats import loading
from agiqa.data.images import ImageError, decode
from kit.image_files import chunk, gif, png, tiff, tiff_of


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    content = b"WEBP" + b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(content)) + content


GREY = np.zeros((8, 8, 1), dtype=int)
JPEG = saved(Image.new("RGB", (8, 8)), "JPEG")


def many_scans(before: bytes = b"") -> bytes:
    """A progressive JPEG whose last scan stands 3,000 times more."""
    whole = saved(Image.linear_gradient("L").resize((3000, 3000)), "JPEG", progressive=True)
    scan = whole[whole.rfind(b"\xff\xda") : -2]
    return whole[:-2] + before + scan * 3000 + whole[-2:]


def greedy_exif(count: int) -> bytes:
    """EXIF whose every field claims the whole block."""
    block = b"II*\0" + struct.pack("<IH", 8, count)
    return block + b"".join(struct.pack("<HHII", at, 7, 12 * count, 8) for at in range(count))


def long_gif() -> bytes:
    comments = b"!\xfe" + b"\1x" * 2_000_000 + b"\0"
    return gif([(GREY[..., 0], (0, 0), None)], (8, 8), GREY[0], before=comments)


def many_frames() -> bytes:
    frame = bytes(16) + b"VP8L" + struct.pack("<I", 4) + b"\x2f\0\0\0"
    flags = bytes([2, 0, 0, 0, 7, 0, 0, 7, 0, 0])
    return riff((b"VP8X", flags), (b"ANIM", bytes(6)), *[(b"ANMF", frame)] * 100_000)


# What each is: its bytes, and what the line says
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a progressive JPEG of 3,000 scans": (
        many_scans,
        "scans of 3000 x 3000 pixels, too much work",
    ),
    "scans behind a segment that holds an end": (
        lambda: many_scans(b"\xff\xfe\0\4\xff\xd9"),
        "too much work",
    ),
    "a JPEG of a million comments": (
        lambda: JPEG[:2] + b"\xff\xfe\0\2" * 1_000_000 + JPEG[2:],
        "more than 65,536 parts",
    ),
    "a JPEG of a thousand tables": (
        lambda: JPEG[:2] + JPEG[JPEG.index(b"\xff\xdb") :][:69] * 10_000 + JPEG[2:],
        "bytes of tables",
    ),
    "a JPEG of two sizes": (
        lambda: JPEG.replace(b"\xff\xc0", b"\xff\xc0\0\x0b\x08\0\1\0\1\1\1\x11\0\xff\xc0"),
        "two frame headers",
    ),
    "a PNG of 1 x 64 million": (
        lambda: b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 64_000_000, 1, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(128_000_000), 9))
        + chunk(b"IEND", b""),
        "a side longer than the limit of 32,768",
    ),
    "a PNG of 1 x 300": (lambda: png(GREY[:1].repeat(300, 0)[:, :1], 8, 0), "200 times the other"),
    "a PNG of a million chunks": (
        lambda: png(GREY, 8, 0, *[chunk(b"tEXt", b"a\0b")] * 100_000),
        "more than 65,536 parts",
    ),
    "a WebP of 100,000 frames": (many_frames, "more than 65,536 parts"),
    "a WebP whose canvas is 16,383 square": (
        lambda: riff((b"VP8X", b"\0\0\0\0\xfe\x3f\0\xfe\x3f\0"), (b"VP8L", b"\x2f\0\0\0\0")),
        "more than the limit of 64,000,000",
    ),
    "a GIF of two million blocks of comment": (long_gif, "more than 65,536 parts"),
    "a GIF whose screen is 65,535 square": (
        lambda: gif([(GREY[..., 0], (0, 0), None)], (65535, 65535), GREY[0]),
        "more than the limit of 64,000,000",
    ),
    "a GIF whose frame leaves its screen": (
        lambda: gif([(GREY[..., 0], (60_000, 60_000), None)], (8, 8), GREY[0]),
        "more than the limit of 64,000,000",
    ),
    "a TIFF whose strips are all the same": (
        lambda: tiff(
            np.zeros((30_000, 200, 1), int), 8, 1, tags=[
                (273, [8] * 30_000), (279, [6_000_000] * 30_000), (278, [1]),
            ],
        ),
        "strips are longer than the file",
    ),
    "a TIFF of a huge tile": (
        lambda: tiff(GREY, 8, 1, packed_as=8, tags=[
            (322, [1 << 20]), (323, [1 << 20]), (324, [8]), (325, [8])]),
        "tiles larger than a picture may be",
    ),
    "a TIFF of a million strips": (
        lambda: tiff(GREY, 8, 1, tags=[(273, [8] * 1_000_000)]),
        "too many parts",
    ),
}  # fmt: skip
# What is passed over: the picture is given as if it were not there
IGNORED: dict[str, Callable[[], bytes]] = {
    "EXIF whose fields all claim the whole, in a JPEG": lambda: (
        JPEG[:2]
        + b"".join(
            b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part
            for part in (greedy_exif(40_000)[at : at + 60_000] for at in range(0, 480_010, 60_000))
        )
        + JPEG[2:]
    ),
    "the same in a PNG": lambda: png(GREY, 8, 0, chunk(b"eXIf", greedy_exif(60_000))),
    "text of 100 MB in a PNG": lambda: png(
        GREY, 8, 0, *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10 << 20)))] * 10
    ),
    "a profile of 1 GB in a PNG": lambda: png(
        GREY, 8, 0, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(256 << 20), 9))
    ),
    "an orientation in 100 MB of text": lambda: png(
        GREY, 8, 0, chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(100 << 20)))
    ),
    "tags of a TIFF that all claim the whole": lambda: tiff_of(
        {
            **{tag: [1] * 30_000 for tag in range(50_000, 50_100)},
            256: [8], 257: [8], 258: [8], 259: [1], 262: [1], 273: [8], 277: [1], 278: [8],
            279: [64],
        },
        bytes(64),
    ),
    "a directory of a TIFF that is its own next": lambda: _looped(tiff(GREY, 8, 1)),
}  # fmt: skip


def _looped(content: bytes) -> bytes:
    """The next directory is the first, and so is the EXIF directory."""
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    return content[: start + 2 + 12 * count] + struct.pack("<I", start)


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_ends_in_one_line(kind: str, tmp_path: Path, attack: Callable) -> None:
    make, words = BOMBS[kind]
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.png").write_bytes(make())
    done = attack("prepare", "ours", "--from", folder, seconds=8)
    assert "1 of 1 images cannot be used: a.png " in done.error
    assert words in done.error


@pytest.mark.parametrize("kind", IGNORED)
def test_what_makes_no_pixel_is_not_unpacked(kind: str, tmp_path: Path, attack: Callable) -> None:
    content = IGNORED[kind]()
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.png").write_bytes(content)
    done = attack("prepare", "ours", "--from", folder, seconds=8)
    assert done.status == 0, done.err
    assert decode(content).size == (8, 8)


RUNS = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 1078) + struct.pack(
    "<IiiHHIIiiII", 40, 8000, 8000, 1, 8, 1, 0, 0, 0, 256, 0
) + bytes(1024) + b"\1\7" * 10_000_000  # fmt: skip
DEFLATE = {"compression": "tiff_adobe_deflate"}
# What no header bounds is decoded in a process with limits of seconds and megabytes
ISOLATED: dict[str, tuple[Callable[[], bytes], int, int]] = {
    "run lengths of a BMP": (lambda: RUNS, 1, 2048),
    "a PPM in plain text": (lambda: b"P3 4000 4000 255\n" + b"1 " * 48_000_000, 1, 2048),
    "a compressed TIFF": (lambda: saved(Image.new("RGB", (6000, 6000)), "TIFF", **DEFLATE), 20, 60),
}


@pytest.mark.parametrize("kind", ISOLATED)
def test_a_process_with_limits_is_ended_at_them(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, seconds, megabytes = ISOLATED[kind]
    monkeypatch.setattr(loading, "SECONDS", seconds)
    monkeypatch.setattr(loading, "MEGABYTES", megabytes)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with pytest.raises(ImageError, match=f"more than {seconds} s or {megabytes} MB to decode"):
        decode(make())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime < seconds + 2


def test_nothing_of_the_working_folder_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, canary: Any
) -> None:
    content = saved(Image.new("RGB", (8, 8)), "TIFF", **DEFLATE)
    for name in ("PIL", "numpy", "struct", "agiqa"):
        (tmp_path / f"{name}.py").write_text(canary.code)
    monkeypatch.chdir(tmp_path)
    assert decode(content).size == (8, 8)


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("device.png", lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
        ("pipe.png", os.mkfifo, "is not a regular file"),
        ("folder.png", Path.mkdir, "is a folder, not an image file"),
        ("loop.png", lambda path: path.symlink_to(path.name), "cannot be read: Too many levels"),
        ("gone.png", lambda path: path.symlink_to("nowhere"), "is a link to a file that does not"),
        ("empty.png", Path.touch, "is empty (0 bytes)"),
        ("sparse.png", lambda path: os.truncate(_new(path), 1 << 40), "more than the limit of 256"),
        ("proc.png", lambda path: path.symlink_to("/proc/self/maps"), "is empty (0 bytes)"),
        ("caf\udce9.png", lambda path: path.write_bytes(JPEG), "has a name that is not UTF-8"),
    ],
)
def test_what_is_no_file_of_pixels(
    tmp_path: Path, attack: Callable, name: str, make: Callable[[Path], object], words: str
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    make(folder / name)
    for number in range(3):
        (folder / f"{number}.png").write_bytes(JPEG + bytes(number))
    command: list[object] = ["prepare", "ours", "--from", folder]
    if name == "folder.png":  # passed over in a folder, but not in a list
        (folder / "labels.csv").write_text("file,mos\nfolder.png,3\n0.png,4\n1.png,4\n2.png,5\n")
        command = [*command[:3], folder / "labels.csv", "--image-column=file", "--score-column=mos"]
    refused = attack(*command, seconds=8)
    assert words in refused.error
    kept = attack(*command, "--skip-bad", seconds=8)
    assert kept.status == 0, kept.err
    assert words in kept.err


def _new(path: Path) -> Path:
    path.touch()
    return path


def test_another_file_in_its_place_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(JPEG)
    with pytest.raises(ImageError, match="has changed since prepare"):
        decode(path, "0" * 64)


def test_a_file_that_changes_all_the_time_is_one_or_the_other(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    whole = [saved(Image.new("RGB", (64, 64), colour), "PNG") for colour in ("red", "blue")]
    path.write_bytes(whole[0])
    stop = threading.Event()

    def change() -> None:
        count = 0
        while not stop.is_set():
            count += 1
            other = path.with_suffix(f".{count % 2}")
            if count % 3 == 0:
                path.unlink(missing_ok=True)
                os.mkfifo(path)
            else:
                other.write_bytes(whole[count % 2])
                other.replace(path)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for _ in range(300):
            try:
                seen = decode(path)
            except ImageError:
                continue
            assert seen.getpixel((9, 9)) in ((255, 0, 0), (0, 0, 255))
    finally:
        stop.set()
        changing.join()


def test_a_folder_that_cannot_be_read_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agiqa.core.errors import AgiqaError
    from agiqa.data.datasets.folder import find_images

    (tmp_path / "a.png").write_bytes(JPEG)
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def closed(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(AgiqaError, match=r"closed: expected a folder .* \(Permission denied\)"):
        find_images(tmp_path)


def test_a_folder_of_many_entries_is_listed_at_once(tmp_path: Path) -> None:
    from agiqa.data.datasets.folder import find_images

    for number in range(2_000):
        (tmp_path / f"{number}.png").touch()
    (tmp_path / "round").symlink_to(tmp_path)
    assert len(find_images(tmp_path)) == 2_000


def test_one_decoder_opens_images() -> None:
    package = Path(agiqa.__file__).parent
    opening = [path for path in package.rglob("*.py") if "Image.open(" in path.read_text("utf-8")]
    assert [path.relative_to(package).as_posix() for path in opening] == [
        "data/image_formats/loading.py"
    ]
