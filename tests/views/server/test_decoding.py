"""Decoding in child processes: bounded by the kernel, and over when a request is given up."""

import asyncio
import io
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from agiqa.views.server import decoding
from agiqa.views.server.decoding import Decoders, UndecodableError
from agiqa.views.server.limits import Limits
from kit.serving_files import bomb


def _run(ask: Callable[[Decoders], Awaitable[None]], **limits: float) -> None:
    async def with_decoders() -> None:
        decoders = Decoders(replace(Limits(), **limits))  # type: ignore[arg-type]
        try:
            await ask(decoders)
        finally:
            await decoders.close()

    asyncio.run(with_decoders())


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children whose pictures do what their names say."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setattr(decoding, "PROGRAM", "slow_decoder")


def test_pictures_are_checked_and_made_small(tmp_path: Path) -> None:
    good, text, large = tmp_path / "gut\udcff.png", tmp_path / "text.png", tmp_path / "bomb.png"
    Image.new("RGB", (400, 100), "blue").save(good)
    text.write_text("no picture")
    large.write_bytes(bomb())

    async def ask(decoders: Decoders) -> None:
        image = await decoders.rgb(good)
        assert image is not None
        assert (image.mode, image.size, image.getpixel((9, 9))) == ("RGB", (400, 100), (0, 0, 255))
        picture = await decoders.jpeg(good, 80, 80)
        assert Image.open(io.BytesIO(picture)).size == (80, 20)
        for path, reason in ((text, "is not an image"), (large, "30000 x 30000 pixels")):
            with pytest.raises(UndecodableError, match=reason):
                await decoders.rgb(path)
        await asyncio.gather(*(decoders.rgb(good) for _ in range(10)))

    _run(ask)


def test_a_large_image_is_decoded_but_not_handed_over(tmp_path: Path) -> None:
    Image.new("RGB", (40, 10)).save(tmp_path / "a.png")

    async def ask(decoders: Decoders) -> None:
        assert await decoders.rgb(tmp_path / "a.png") is None

    _run(ask, handed_pixels=399)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("busy", "takes more than 1 s to decode"),
        ("large", "is too large for the memory there is"),
        ("crash", "its decoder broke down over it"),
    ],
)
def test_a_bad_file_ends_alone(slow: None, tmp_path: Path, name: str, reason: str) -> None:
    async def ask(decoders: Decoders) -> None:
        bad = asyncio.create_task(decoders.rgb(tmp_path / name))
        await asyncio.gather(*(decoders.rgb(tmp_path / "fine") for _ in range(4)))
        with pytest.raises(UndecodableError, match=reason):
            await bad
        await asyncio.gather(*(decoders.rgb(tmp_path / "fine") for _ in range(4)))

    _run(ask, decode_seconds=1)


def test_a_place_is_free_once_the_work_has_ended(slow: None, tmp_path: Path) -> None:
    async def ask(decoders: Decoders) -> None:
        given_up = asyncio.create_task(decoders.rgb(tmp_path / "wait"))
        waiting = asyncio.create_task(decoders.rgb(tmp_path / "fine"))
        pid = tmp_path / "pid"
        while not (pid.exists() and pid.read_text()):
            await asyncio.sleep(0.01)
        assert not waiting.done()
        given_up.cancel()
        await waiting
        assert given_up.cancelled()
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)

    _run(ask, decoders=1)


def test_where_no_process_can_be_started_the_file_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(decoding.sys, "executable", str(tmp_path / "nothing"))  # type: ignore[attr-defined]

    async def ask(decoders: Decoders) -> None:
        with pytest.raises(UndecodableError, match="cannot be decoded now: No such file"):
            await decoders.rgb(tmp_path / "fine")

    _run(ask)
