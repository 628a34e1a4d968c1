"""Packs and whole caches at URLs: copied once, checked, copied again when they have changed.

What a bucket or a server lists and sends is not believed: names stay inside the folder, sizes are
kept to.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import fsspec
import numpy as np
import pandas as pd
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import read_table
from agiqa.store import DamagedRowsError, RemoteError, read_pack, write_pack
from agiqa.store.remote import Remote, is_inside
from kit.command import agiqa
from kit.machines import Machine, Server, make_ids, vectors_of

Machines = Callable[[str], Machine]
FAST = ["--set=fit.components=8", "--set=fit.semantic_components=4", "--set=fit.epochs=4"]


def upload(folder: Path, bucket: str) -> None:
    """As `aws s3 cp --recursive` does."""
    system = fsspec.filesystem("s3")
    for path in folder.rglob("*"):
        if path.is_file():
            system.pipe_file(f"{bucket}/{path.relative_to(folder.parent)}", path.read_bytes())


def pack(path: Path, count: int, start: int = 0) -> Path:
    ids = make_ids(count, start)
    write_pack(path, "nano", ["a"], [{"extractor": "nano"}], ids, vectors_of(ids)[:, None])
    return path


def copies(machine: Machine) -> list[Path]:
    found = (machine.home / "agiqa" / "copies").rglob("nano.*")
    return [path for path in found if path.suffix in (".zarr", ".h5")]


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_pack_is_copied_once_and_again_when_it_has_changed(
    suffix: str, machine: Machines, bucket: str, tmp_path: Path
) -> None:
    here, url = machine("a").enter(), f"s3://{bucket}/some/nano{suffix}"
    folder = tmp_path / "some"
    upload(pack(folder / f"nano{suffix}", 300).parent, bucket)
    store = read_pack(url)
    assert store.image_ids == tuple(make_ids(300))
    np.testing.assert_array_equal(store.vectors[:, 0], vectors_of(make_ids(300)))
    (copy,) = copies(here)
    before = copy.stat().st_ino
    assert read_pack(url).path == copy
    assert copy.stat().st_ino == before  # not copied again
    upload(pack(folder / f"nano{suffix}", 300, start=300).parent, bucket)  # the same size
    assert read_pack(url).image_ids == tuple(make_ids(300, 300))
    assert copies(here) == [copy]
    assert not list(copy.parent.glob("*.partial"))


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_damaged_pack_does_not_replace_the_copy(
    suffix: str, machine: Machines, bucket: str, tmp_path: Path
) -> None:
    here, url = machine("a").enter(), f"s3://{bucket}/some/nano{suffix}"
    upload(pack(tmp_path / "some" / f"nano{suffix}", 300).parent, bucket)
    row = read_pack(url).vectors[270].tobytes()
    system = fsspec.filesystem("s3")
    found = system.find(f"{bucket}/some")
    (path,) = [path for path in found if path.endswith(("vectors/c.1.0.0", ".h5"))]
    data = bytearray(system.cat_file(path))
    data[data.index(row)] ^= 1
    system.pipe_file(path, bytes(data))
    with pytest.raises(DamagedRowsError, match=f"^{url}: .* 1 damaged .*copied from there"):
        read_pack(url)
    (copy,) = copies(here)
    assert read_pack(copy).image_ids == tuple(make_ids(300))


def test_what_is_not_there_or_not_allowed(
    machine: Machines, server: Server, bucket: str, tmp_path: Path
) -> None:
    machine("a").enter()
    with pytest.raises(RemoteError, match=r"nano.zarr: expected a file or folder, found nothing"):
        read_pack(f"s3://{bucket}/nano.zarr")
    with pytest.raises(RemoteError, match="The specified bucket does not exist"):
        read_pack("s3://no-such-bucket/nano.zarr")
    with pytest.raises(AgiqaError, match=r"expected a pack named .*, found '\.pt'"):
        read_pack(f"s3://{bucket}/nano.pt")
    upload(pack(tmp_path / "some" / "nano.zarr", 3).parent, bucket)
    server.let_in(False)
    with pytest.raises(RemoteError, match=r"no access .* check the credentials"):
        read_pack(f"s3://{bucket}/some/nano.zarr")


def test_fit_evaluate_and_report_from_a_bucket_without_images(
    machine: Machines,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_images: Callable[..., Path],
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [f"{row:02d}.png" for row in range(40)]
    write_images(*names)
    mos = np.random.default_rng(0).uniform(1, 5, 40)
    labels = pd.DataFrame({"file": names, "mos": mos, "prompt": [f"a {n // 2}" for n in range(40)]})
    labels.to_csv("images/labels.csv", index=False)
    columns = ("--image-column", "file", "--score-column", "mos", "--prompt-column", "prompt")
    agiqa("prepare", "mine", "--from", "images/labels.csv", *columns, "--set=splits.count=2")
    ids = list(read_table(Path("cache/mine")).frame["image_id"])
    for name, suffix in (("nano-vision", "zarr"), ("nano", "zarr"), ("other", "h5")):
        rows = vectors_of(ids)[:, None]
        write_pack(Path(f"cache/mine/{name}.{suffix}"), name, ["a"], [{"by": name}], ids, rows)
    upload(Path("cache"), bucket)
    shutil.rmtree("images")
    shutil.rmtree("cache")
    here, url = machine("laptop").enter(), f"s3://{bucket}/cache"
    agiqa("fit", "mine", "--target", "mos", "--cache", url, *FAST)
    other = ("--set=semantic.name=other", "--set=semantic.format=h5", "-o", "runs/other")
    agiqa("fit", "mine", "--target", "mos", "--cache", url, *FAST, *other)
    agiqa("evaluate", "runs/mine/grouped", "--cache", url)
    agiqa("report", "runs/mine/grouped", "--cache", url)
    assert "is not on this machine" in Path("runs/mine/grouped/report.html").read_text()
    assert len(list((here.home / "agiqa" / "copies").rglob("root.json"))) == 0
    nowhere = f"s3://{bucket}/else"
    missing = f"{nowhere}/mine/images.csv: expected a file or folder, found nothing"
    _refused(1, missing, "fit", "mine", "--target", "mos", "--cache", nowhere)
    for command in (("prepare", "mine"), ("extract", "mine")):
        _refused(2, f"on this machine, found the URL {url}", *command, "--cache", url)
    copy = next(here.home.glob("agiqa/copies/*"))
    _refused(1, "'mine' came without its images", "extract", "mine", "--cache", copy)


def _refused(status: int, message: str, *words: object) -> None:
    result = agiqa(*words, status=status)
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_the_cache_commands_take_a_packs_url(
    machine: Machines, bucket: str, tmp_path: Path
) -> None:
    machine("a").enter()
    upload(pack(tmp_path / "some" / "nano.zarr", 30).parent, bucket)
    url = f"s3://{bucket}/some/nano.zarr"
    shown = agiqa("cache", "show", url, "--json")
    assert '"rows": 30' in shown.stdout, shown.output
    agiqa("cache", "verify", url)
    agiqa("cache", "export", url, "-o", tmp_path / "nano.npz")
    assert np.load(tmp_path / "nano.npz")["image_id"].shape[0] == 30
    agiqa("cache", "convert", url, tmp_path / "nano.h5")
    assert read_pack(tmp_path / "nano.h5").image_ids == read_pack(url).image_ids
    assert "30 rows, 30 added" in agiqa("cache", "merge", url).stdout
    _refused(1, "nano.h5: expected a file or folder", "cache", "show", f"{url[:-5]}.h5")


@pytest.mark.parametrize(
    "name",
    [
        "../x", "a/../x", "/x", "a//x", "a/", ".", "./x", "C:/x", "a\\x", "a\nx", "\x1b[2Jx",
        "a\u202ex", "a\x00", "x" * 201, "é" * 101,
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere(name: str) -> None:
    assert not is_inside(name)


@pytest.mark.parametrize("name", ["x", "vectors/c.0.0.0", "segments/" + "a" * 80, "é ü/..x", ".x"])
def test_names_that_do_not(name: str) -> None:
    assert is_inside(name)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[fsspec.AbstractFileSystem]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


def test_a_listing_with_such_a_name_copies_nothing(
    memory: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    memory.pipe_file("/bucket/nano.zarr/zarr.json", b"{}")
    memory.pipe_file("/bucket/nano.zarr/\x1b]0;owned\x07", b"x")
    with pytest.raises(RemoteError, match=r"names of files inside the folder, found '\\x1b\]0;"):
        read_pack("memory://bucket/nano.zarr")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_links_and_pipes_of_a_local_folder_are_not_copied(tmp_path: Path) -> None:
    (tmp_path / "nano.zarr").mkdir()
    (tmp_path / "nano.zarr/zarr.json").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "nano.zarr/pipe")
    (tmp_path / "nano.zarr/file").touch()
    assert list(Remote(f"file://{tmp_path}/nano.zarr").files()) == ["file"]


def test_more_bytes_than_a_description_may_have(memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe_file("/bucket/a", bytes(1000))
    assert len(Remote("memory://bucket").read("a", most=1000)) == 1000
    with pytest.raises(RemoteError, match="expected at most 999 bytes, found more"):
        Remote("memory://bucket").read("a", most=999)


class _Liar(BaseHTTPRequestHandler):
    """Lists 1,000 bytes and sends without end."""

    protocol_version = "HTTP/1.1"
    sent: ClassVar[list[int]] = []

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for _ in range(4000):
                self.wfile.write(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
                self.sent.append(1 << 20)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def _serving() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Liar)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_that_sends_without_end_fills_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    found = pytest.raises(RemoteError, match=r"nano\.h5: expected 1,000 bytes, .* found more")
    with _serving() as url, found:
        read_pack(f"{url}/nano.h5")
    assert sum(_Liar.sent) < 1 << 30
    left = [path for path in (tmp_path / "user").rglob("*") if path.suffix == ".h5"]
    assert left == []
