"""`agiqa serve` where it cannot start: one line that says what to do, before anything is served."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.command import agiqa


@pytest.fixture
def here(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("AGIQA_STORE", str(workspace / "ledger"))
    return workspace


def _refused(*options: str, run: str = "runs/mine/random") -> str:
    """The one line that it ends with."""
    result = agiqa("serve", "--run", run, *options, status=1)
    (line,) = [line for line in result.output.splitlines() if line.strip()]
    assert line.startswith("Error: ")
    return line


def test_a_port_in_use(here: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = _refused("--port", str(port))
    assert f"Port {port} of 127.0.0.1 is in use" in said
    assert f"--port {port + 1}" in said


def test_an_address_of_another_machine(here: Path) -> None:
    assert "192.0.2.1: not an address of this machine" in _refused("--host", "192.0.2.1")


def test_a_run_that_cannot_score(here: Path, tmp_path: Path) -> None:
    assert "not a run" in _refused(run="images")
    changed = tmp_path / "run"
    shutil.copytree(here / "runs/mine/random", changed)
    text = (changed / "params.yaml").read_text()
    (changed / "params.yaml").write_text(text.replace("image_size: 32", "image_size: 48"))
    assert "preprocessing.size.height = 32, found 48" in _refused(run=str(changed))


def test_usage_errors_exit_2(here: Path) -> None:
    for wrong in (["--port", "70000"], ["--max-files", "0"], ["--timeout", "0"]):
        agiqa("serve", "--run", "runs/mine/random", *wrong, status=2)


def test_a_server_goes_on_where_nobody_reads_its_output(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agiqa.cli import serve as command
    from agiqa.views.server import server

    said: list[str] = []

    def serve(_: object, *callbacks: Callable[..., object]) -> int:
        for callback, given in zip(callbacks, (["http://x/"], [], [2]), strict=True):
            callback(*given)
        return 1

    def gone(line: str) -> None:
        said.append(line)
        raise BrokenPipeError

    left: list[int] = []
    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.setattr(command, "echo", gone)
    monkeypatch.setattr(command, "_leave", left.append)
    agiqa("serve", "--run", "runs/mine/random")
    assert left == [1]
    assert [line.split()[0] for line in said] == ["http://x/", "Ready", "Stopping:", "Stopped;"]
