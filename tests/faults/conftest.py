"""Processes to kill, and counts of what every fault test tried (../conftest.py prints them)."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
REPOSITORY = TESTS.parent


@pytest.fixture
def count(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Notes counts for the summary: `count(trials=100, torn_rows=0)`."""

    def note(**counts: object) -> None:
        for name, number in counts.items():
            record_property(f"count {name.replace('_', ' ')}", number)

    return note


class Worker:
    """A process (forking.py) that starts jobs, each in a fresh process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.job = 0  # process id of the last one
        self.said: Any = None  # by the last job

    def start(self, job: str, *given: object) -> int:
        """Start a job and give its process id."""
        self.process.stdin.write(json.dumps([job, *given]) + "\n")
        self.process.stdin.flush()
        self.job = int(self.process.stdout.readline())
        return self.job

    def until(self, happened: Callable[[], bool]) -> None:
        """Wait until the job has made this happen, or has ended without it."""
        with suppress(ProcessLookupError):
            while not happened():
                os.kill(self.job, 0)  # sends nothing
                time.sleep(0.001)

    def wait(self) -> int:
        """Wait for the job's end and give its status: 0, or minus the signal that killed it."""
        status, self.said = json.loads(self.process.stdout.readline())
        return status

    def run(self, job: str, *given: object) -> Any:
        """Start a job, wait for its end, and give what it said."""
        self.start(job, *given)
        assert self.wait() == 0
        return self.said


def environment(**more: str) -> dict[str, str]:
    """This process's, for a script that imports what tests import."""
    path = os.pathsep.join([str(REPOSITORY / "pipeline"), str(TESTS)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


@pytest.fixture(scope="session")
def run_python() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs Python with these arguments in a process of its own."""

    def run(*arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 120}
        return subprocess.run([sys.executable, *arguments], env=environment(**more), **options)

    return run


@pytest.fixture(scope="session")
def open_worker() -> Callable:
    """Opens a further worker, as a context."""

    @contextmanager
    def opened(script: str = "worker.py", **more: str) -> Iterator[Worker]:
        command = [sys.executable, str(Path(__file__).with_name(script))]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=environment(**more)
        ) as process:
            yield Worker(process)

    return opened


@pytest.fixture(scope="session")
def worker(open_worker: Callable) -> Iterator[Worker]:
    with open_worker() as opened:
        yield opened


@pytest.fixture(scope="session")
def command_line(
    open_worker: Callable, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    """A worker that runs `agiqa` (extract_worker.py); its hub cache is empty."""
    hub = tmp_path_factory.mktemp("hub")
    with open_worker(
        "extract_worker.py", HF_HOME=str(hub), HF_HUB_CACHE=str(hub / "hub"), HF_HUB_OFFLINE=""
    ) as opened:
        yield opened


@pytest.fixture
def on_small_disk() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs a script of this folder on a tmpfs of its own, mounted on the folder it is given."""

    def run(script: str, folder: Path, size: str) -> "subprocess.CompletedProcess[str]":
        mount = f'mount -t tmpfs -o size={size} tmpfs "$1"'
        shell = ["sh", "-c", f'{mount} && exec "$2" "$3" "$1"', "-"]
        private = ["unshare", "--mount", *(() if os.getuid() == 0 else ("--map-root-user",))]
        options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 120}
        if (
            shutil.which("unshare") is None
            or subprocess.run([*private, "sh", "-c", mount, "-", folder], **options).returncode
        ):
            pytest.skip("neither root nor user namespaces: may not mount a small tmpfs here")
        return subprocess.run(
            [*private, *shell, folder, sys.executable, Path(__file__).with_name(script)],
            env=environment(),
            **options,
        )

    return run
