"""Connections that ask nothing, descriptors that run out, and signals: of a real uvicorn."""

import json
import logging
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Queue
from typing import IO, Any

import httpx
import pytest

from agiqa.views.server.connections import SeldomRepeated, limited_by_descriptors
from agiqa.views.server.limits import Limits

PATIENCE = 60  # seconds; machines are busy


@dataclass(frozen=True)
class Tiny:
    """The server of tiny_server.py in a process of its own."""

    process: subprocess.Popen[str]
    port: int
    lines: "Queue[str]"  # of its standard output
    errors: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def said(self, line: str) -> None:
        """Wait for that line, which is the next."""
        assert self.lines.get(timeout=PATIENCE) == line

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def asked(self, path: str, body: str = "") -> "Queue[httpx.Response]":
        """Post from a thread; what is answered."""
        answers: Queue[httpx.Response] = Queue()

        def ask() -> None:
            with suppress(httpx.TransportError):  # the test is over
                answers.put(httpx.post(self.url + path, content=body, timeout=PATIENCE))

        threading.Thread(target=ask, daemon=True).start()
        return answers


@pytest.fixture
def start(python: list[str]) -> Callable[..., AbstractContextManager[Tiny]]:
    """Starts a tiny server; its keywords are limits, of descriptors the kernel's."""
    return partial(_tiny, python)


@contextmanager
def _tiny(
    python: list[str], *seconds: float, descriptors: int = 0, **limits: float
) -> Iterator[Tiny]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    script = Path(__file__).with_name("tiny_server.py")
    # A fork of another process would not have the limit of this one's child.
    words = [sys.executable] if descriptors else python
    with subprocess.Popen(
        [*words, str(script), json.dumps(limits), *map(str, seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit if descriptors else None,
    ) as process:
        lines: Queue[str] = Queue()
        errors: list[str] = []

        def read(stream: IO[str], keep: Callable[[str], object]) -> None:
            for line in stream:
                keep(line.rstrip("\n"))

        assert process.stdout is not None
        assert process.stderr is not None
        readers = [
            threading.Thread(target=read, args=(process.stdout, lines.put), daemon=True),
            threading.Thread(target=read, args=(process.stderr, errors.append), daemon=True),
        ]
        for reader in readers:
            reader.start()
        try:
            tiny = Tiny(process, int(lines.get(timeout=PATIENCE)), lines, errors)
            tiny.said("started")  # signals are its own from here on
            yield tiny
        finally:
            process.kill()
            process.wait()
            for reader in readers:
                reader.join()


Start = Callable[..., AbstractContextManager[Tiny]]


def _closed(connection: socket.socket) -> bool:
    """Wait for the other side to close."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_a_connection_that_asks_nothing_is_closed(start: Start) -> None:
    """Silent, stopping in its head, trickling it byte by byte, or idle after an answer."""
    with start(head_seconds=0.3, idle_seconds=1) as tiny:
        with tiny.connect() as silent, tiny.connect() as half:
            half.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nX-A")
            assert _closed(silent)
            assert _closed(half)
        with tiny.connect() as trickling:
            trickling.settimeout(0.02)
            with pytest.raises(ConnectionError):  # noqa: PT012
                trickling.sendall(b"GET / HTTP/1.1\r\nX-Long: ")
                while True:
                    trickling.sendall(b"a")
                    try:
                        if trickling.recv(1) == b"":
                            raise ConnectionResetError
                    except TimeoutError:
                        pass
        with tiny.connect() as idle:
            idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert idle.recv(1000).startswith(b"HTTP/1.1 200")
            while not _closed(idle):
                pass
        slow = tiny.asked("/wait", str(Path(__file__).with_name("nothing")))
        tiny.said("began")  # an answer may take as long as it does
        with tiny.connect() as other:
            assert _closed(other)
        assert slow.empty()


def test_connections_beyond_the_number_are_told_and_then_closed(start: Start) -> None:
    with start(connections=4, backlog=2) as tiny, ExitStack() as stack:
        held = [stack.enter_context(tiny.connect()) for _ in range(3)]
        refused = httpx.get(tiny.url)
        assert refused.status_code == 503
        held += [stack.enter_context(tiny.connect()) for _ in range(20)]
        assert _closed(held[-1])
        for connection in held:
            connection.close()
        while httpx.get(tiny.url).status_code == 503:  # it sees them go one by one
            pass
        assert httpx.get(tiny.url).text == "fine"


def test_descriptors_that_run_out_are_one_line_and_no_end(start: Start) -> None:
    with start(descriptors=40, backlog=100) as tiny, ExitStack() as stack:
        held = [stack.enter_context(tiny.connect()) for _ in range(80)]
        while not tiny.errors:
            assert tiny.process.poll() is None
            time.sleep(0.01)
        for connection in held:
            connection.close()
        assert httpx.get(tiny.url, timeout=PATIENCE).text == "fine"
    (line,) = tiny.errors
    assert line == "No file descriptors are left (limit 40): new connections wait."


def test_a_signal_lets_what_is_under_way_end(start: Start, tmp_path: Path) -> None:
    """No more is taken, but health is answered; then the process ends by itself."""
    may = tmp_path / "may"
    with start() as tiny:
        under_way = tiny.asked("/wait", str(may))
        tiny.said("began")
        tiny.process.send_signal(signal.SIGTERM)
        tiny.said("stopping 1")
        refused = httpx.get(tiny.url)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert "stopping" in refused.json()["detail"]
        assert httpx.get(tiny.url + "/health").text == "fine"
        may.touch()
        assert under_way.get(timeout=PATIENCE).text == "fine"
        tiny.said("closing")
        tiny.said("cut off 0")
        assert tiny.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, None])
def test_a_second_signal_or_the_end_of_the_grace_cuts_it_off(
    start: Start, second: signal.Signals | None
) -> None:
    with start(seconds=300 if second else 1) as tiny:
        under_way = tiny.asked("/wait", str(Path(__file__).with_name("nothing")))
        tiny.said("began")
        tiny.process.send_signal(signal.SIGINT)
        tiny.said("stopping 1")
        if second:
            tiny.process.send_signal(second)
        answer = under_way.get(timeout=PATIENCE)
        if second:
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        else:
            assert answer.status_code in (503, 504)  # its own time ends with the grace
        tiny.said("closing")
        assert tiny.process.wait(PATIENCE) == 0


def test_nothing_under_way_ends_at_once(start: Start) -> None:
    with start() as tiny:
        with tiny.connect():
            tiny.process.send_signal(signal.SIGTERM)
            tiny.said("closing")
            tiny.said("cut off 0")
        assert tiny.process.wait(PATIENCE) == 0


@pytest.mark.parametrize(("late", "last", "status"), [(0.2, 30, 7), (0.2, 0.1, -signal.SIGALRM)])
def test_what_never_ends_is_left_behind(
    start: Start, late: float, last: float, status: int
) -> None:
    """A loop that hangs: ended from another thread; or by the kernel where that hangs as well."""
    with start(late, last, seconds=0.5) as tiny:
        tiny.asked("/stuck")
        tiny.said("began")
        tiny.process.send_signal(signal.SIGTERM)
        assert tiny.process.wait(PATIENCE) == status


def test_connections_fit_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: now[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: now.append(limits))
    limits = Limits()
    assert limited_by_descriptors(limits) == limits
    assert len(now) == 1  # enough already
    now[:] = [(256, 4096)]
    assert limited_by_descriptors(limits) == limits
    assert 512 < now[-1][0] <= 4096
    now[:] = [(256, 256)]
    few = limited_by_descriptors(limits)
    assert few.connections + 2 * few.backlog < 128
    now[:] = [(256, resource.RLIM_INFINITY)]
    assert limited_by_descriptors(limits) == limits


def test_one_line_of_a_kind_in_a_while() -> None:
    seldom = SeldomRepeated()

    def shown(name: str, message: str, error: Any = None) -> bool:
        exc_info = (type(error), error, None) if error else None
        record = logging.LogRecord(name, logging.WARNING, "", 0, message, (), exc_info)
        return seldom.filter(record)

    assert shown("uvicorn.error", "Invalid HTTP request received.")
    assert not any(shown("uvicorn.error", "Invalid HTTP request received.") for _ in range(100))
    assert shown("uvicorn.error", "Exceeded concurrency limit.")
    for _ in range(2):  # a failure of ours is seen each time
        assert shown("uvicorn.error", "Exception in ASGI application\n", ValueError("x"))


def test_any_thread_may_log() -> None:
    seldom = SeldomRepeated()

    def log(thread: int) -> bool:
        names = (f"{thread}: {number}" for number in range(4000))
        return all(seldom.filter(logging.makeLogRecord({"msg": name})) for name in names)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(log, range(8)))
