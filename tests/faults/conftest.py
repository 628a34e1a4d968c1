"""Processes to kill, disks to fill (kit/workers.py)."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kit import workers
from kit.workers import Worker, environment


@pytest.fixture(scope="session")
def run_python() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs Python with these arguments in a process of its own."""

    def run(*arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 600}
        return subprocess.run([sys.executable, *arguments], env=environment(**more), **options)

    return run


@pytest.fixture(scope="session")
def open_worker() -> Iterator[Callable]:
    """Lends a worker, as a context; one that comes back is lent again."""
    idle: list[Worker] = []
    with ExitStack() as stack:

        @contextmanager
        def lend() -> Iterator[Worker]:
            script = Path(__file__).with_name("worker.py")
            worker = idle.pop() if idle else stack.enter_context(workers.open_worker(script))
            yield worker
            idle.append(worker)

        yield lend


@pytest.fixture(scope="session")
def worker(open_worker: Callable) -> Iterator[Worker]:
    with open_worker() as opened:
        yield opened


@pytest.fixture(scope="session")
def command_line(python: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker that runs `agiqa` (extract_worker.py); its hub cache is empty."""
    hub = tmp_path_factory.mktemp("hub")
    with workers.open_worker(
        Path(__file__).with_name("extract_worker.py"),
        python,
        HF_HOME=str(hub),
        HF_HUB_CACHE=str(hub / "hub"),
        HF_HUB_OFFLINE="",
    ) as opened:
        yield opened


@pytest.fixture
def on_small_disk() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs a script of this folder on a tmpfs of its own, mounted on the folder it is given."""

    def run(script: str, folder: Path, size: str) -> "subprocess.CompletedProcess[str]":
        mount = f'mount -t tmpfs -o size={size} tmpfs "$1"'
        shell = ["sh", "-c", f'{mount} && exec "$2" "$3" "$1"', "-"]
        private = ["unshare", "--mount", *(() if os.getuid() == 0 else ("--map-root-user",))]
        options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 600}
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
