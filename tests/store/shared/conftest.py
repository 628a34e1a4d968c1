"""Fixtures of tests/kit/machines.py: an S3 server, buckets, machines."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kit.machines import Machine, Server, free_port, make_bucket, use


@pytest.fixture(scope="session")
def session_server(tmp_path_factory: pytest.TempPathFactory, python: list[str]) -> Iterator[Server]:
    pytest.importorskip("moto.server", reason="moto is not installed: pip install -e '.[dev]'")
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'agiqa[s3]'")
    server = Server(python, free_port(), tmp_path_factory.mktemp("moto") / "log")
    yield server
    server.kill()


@pytest.fixture
def server(session_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    use(session_server, monkeypatch)
    yield session_server
    session_server.let_in(True)


@pytest.fixture
def mortal_server(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, python: list[str]
) -> Iterator[Callable[[], Server]]:
    """Starts a server that may be killed; always at the same address."""
    port, started = free_port(), []

    def start() -> Server:
        started.append(Server(python, port, tmp_path / "moto.log"))
        use(started[-1], monkeypatch)
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.fixture
def bucket(server: Server) -> str:
    """A new bucket's name."""
    return make_bucket()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Machine]:
    return lambda name: Machine(tmp_path / f"machine-{name}", monkeypatch)
