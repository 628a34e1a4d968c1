import dataclasses
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets import agiqa_3k, aigiqa_20k
from agiqa.data.datasets.download import _unpack, download
from agiqa.data.datasets.table import read_table
from kit import official_downloads
from kit.command import agiqa, one_line
from kit.hub_server import Hub, serve
from kit.publishing import use_hub

FILLING = 12 << 20  # the library resumes by whole pieces of 10 MiB
Prepare = Callable[..., Result]


@pytest.fixture
def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """`agiqa prepare agiqa-3k --download`, which asks the hub at that address, "" for no network.

    What it says stands in `stderr`, its log lines in `caplog`.
    """

    def run(address: str, status: int = 0) -> Result:
        use_hub(monkeypatch, tmp_path / "hub", address)
        folders = "--from", tmp_path / "data", "--cache", tmp_path / "cache"
        return agiqa("prepare", "agiqa-3k", "--download", *folders, status=status)

    return run


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """AGIQA-3K.zip in small, but of several pieces."""
    folder = official_downloads.agiqa_3k(tmp_path_factory.mktemp("source"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for path in sorted(folder.rglob("*.*")):
            file.write(path, path.relative_to(folder))
        file.writestr("readme.txt", b"\0" * FILLING)
    return packed.getvalue()


def _files(archive: bytes) -> dict[str, bytes]:
    return {"AGIQA-3K.zip": archive, "ava.tgz": b"another data set of the same repository"}


def test_a_broken_download_goes_on_and_is_unpacked_and_read(
    archive: bytes, tmp_path: Path, prepare: Prepare, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    hub: Hub
    with serve(_files(archive), break_after=11 << 20) as hub:
        prepare(hub.address)
    (asked,) = hub.ranges
    assert asked.startswith(f"bytes={10 << 20}-")
    assert "fetching 0.1 GB from huggingface.co/datasets/chaofengc/" in caplog.text
    assert "licence: MIT" in caplog.text
    assert len(read_table(tmp_path / "cache" / "agiqa-3k").frame) == 12
    assert not (tmp_path / "data" / "ava.tgz").exists()
    assert not list((tmp_path / "data").glob(".unpacking*"))
    caplog.clear()
    prepare("")  # it is there: no hub is asked
    assert "fetching" not in caplog.text


def test_a_wrong_checksum(archive: bytes, tmp_path: Path, prepare: Prepare) -> None:
    with serve(_files(archive), stated={"AGIQA-3K.zip": archive + b" "}) as hub:
        one_line(
            prepare(hub.address, status=1),
            "AGIQA-3K.zip: expected the checksum",
            "it was removed; run the command again",
        )
    assert not (tmp_path / "data" / "AGIQA-3K.zip").exists()
    assert not (tmp_path / "cache").exists()


def test_a_file_that_the_hub_has_no_longer(prepare: Prepare) -> None:
    with serve({"ava.tgz": b""}) as hub:
        message = "has no AGIQA-3K.zip any more: follow the links at https://github.com/lcys"
        one_line(prepare(hub.address, status=1), message)


@pytest.mark.parametrize("address", ["", "http://127.0.0.1:9"], ids=["no network", "no answer"])
def test_a_hub_out_of_reach(
    address: str, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # half a minute, between many tries
    one_line(
        prepare(address, status=1),
        "AGIQA-3K cannot be fetched from huggingface.co/datasets/chaofengc/",
        "by hand: follow the links at",
    )


def test_no_copy_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(
        AgiqaError, match=r"AIGIQA-20K has no copy on the hub .*modelscope.* prepare aigiqa-20k"
    ):
        download(aigiqa_20k.FACTS, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_no_room(tmp_path: Path) -> None:
    assert agiqa_3k.FACTS.hub is not None
    huge = dataclasses.replace(agiqa_3k.FACTS.hub, gigabytes=1e9)
    with pytest.raises(AgiqaError, match=r"AGIQA-3K needs 2000000000.0 GB there, .* GB are free"):
        download(dataclasses.replace(agiqa_3k.FACTS, hub=huge), tmp_path)


def test_no_place_for_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AgiqaError, match=r"AGIQA-3K cannot be stored there .*another folder"):
        download(agiqa_3k.FACTS, tmp_path / "file")


# Archives


def _tar(path: Path, **members: bytes) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return path


def test_unpacking_adds_and_replaces(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tgz", **{"set/1.jpg": b"new", "set/2.jpg": b"two"})
    (tmp_path / "set").mkdir()
    (tmp_path / "set/1.jpg").write_bytes(b"old")
    (tmp_path / "set/own.txt").write_bytes(b"own")
    _unpack(archive, tmp_path)
    contents = {path.name: path.read_bytes() for path in (tmp_path / "set").iterdir()}
    assert contents == {"1.jpg": b"new", "2.jpg": b"two", "own.txt": b"own"}


@pytest.mark.parametrize("name", ["../out.jpg", "/tmp/out.jpg"])
def test_nothing_is_unpacked_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    archive = _tar(tmp_path / "in" / "a.tgz", **{name: b"x"})
    if name.startswith("/"):
        _unpack(archive, tmp_path / "in")  # its leading slash is dropped
        assert (tmp_path / "in" / "tmp" / "out.jpg").is_file()
    else:
        with pytest.raises(AgiqaError, match=r"a.tgz: cannot be unpacked .*outside"):
            _unpack(archive, tmp_path / "in")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_only_files_are_unpacked(tmp_path: Path, kind: bytes) -> None:
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in/a.tgz", "w:gz") as archive:
        member = tarfile.TarInfo("link.jpg")
        member.type, member.linkname = kind, "/etc/hostname"
        archive.addfile(member)
    with pytest.raises(AgiqaError, match=r"a.tgz: cannot be unpacked \(link.jpg is a link"):
        _unpack(tmp_path / "in/a.tgz", tmp_path / "in")
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.tgz"]


@pytest.mark.parametrize("name", ["a.zip", "a.tgz"])
def test_damaged_archives(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive")
    with pytest.raises(AgiqaError, match=rf"{name}: cannot be unpacked"):
        _unpack(tmp_path / name, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
