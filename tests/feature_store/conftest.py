"""Fixtures of the feature store's tests: image ids and vectors that any process can make again."""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest


def make_ids(count: int, salt: str = "") -> list[str]:
    return [hashlib.sha256(f"{salt}{row}".encode()).hexdigest() for row in range(count)]


def make_vectors(count: int, *shape: int, dtype: str = "float16", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(dtype)


@pytest.fixture(scope="session", name="make_ids")
def _make_ids() -> Callable[..., list[str]]:
    return make_ids


@pytest.fixture(scope="session", name="make_vectors")
def _make_vectors() -> Callable[..., np.ndarray]:
    return make_vectors


class Worker:
    """A process (worker.py) that starts the same job again and again, each time in a fresh one."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def start(self) -> int:
        """Start the job and give its process id."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def wait(self) -> int:
        """Wait for the job's end and give its status: 0, or minus the signal that killed it."""
        return int(self.process.stdout.readline())


@pytest.fixture(scope="session")
def worker() -> Callable:
    @contextmanager
    def open_worker(job: str, *arguments: object) -> Iterator[Worker]:
        script = Path(__file__).with_name("worker.py")
        command = [sys.executable, str(script), job, *map(str, arguments)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
            yield Worker(process)

    return open_worker
