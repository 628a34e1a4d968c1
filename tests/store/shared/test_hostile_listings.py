"""What a bucket or a server lists and sends: names stay inside the folder, sizes are kept to."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest

from agiqa.store import RemoteError, read_pack
from agiqa.store.shared.remote import Remote, is_inside


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
