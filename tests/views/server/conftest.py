"""A tiny run made by the commands themselves, and servers of it in processes of their own."""

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from kit.processes import AGIQA, process_id


@dataclass(frozen=True)
class Served:
    """A server in another process."""

    url: str
    process: subprocess.Popen[str]
    lines: list[str]  # that it has printed

    @property
    def resident(self) -> int:
        """Bytes of memory that it holds."""
        status = Path(f"/proc/{process_id(self.process)}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) * 1024


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory, tiny_workspace: Path) -> Path:
    """A folder with a data set `mine`, its cache, a ledger and the run runs/mine/random."""
    folder = tmp_path_factory.mktemp("serving")
    return Path(shutil.copytree(tiny_workspace, folder, dirs_exist_ok=True))


@pytest.fixture(scope="session")
def serve(workspace: Path, python: list[str]) -> Callable[..., object]:
    """Starts `agiqa serve` with further options on a port of its own, and stops it."""

    @contextmanager
    def start(*options: str, run: str = "runs/mine/random") -> Iterator[Served]:
        process = subprocess.Popen(
            [*python, *AGIQA, "serve", "--run", run, "--port", "0", *options],
            cwd=workspace,
            env={
                **os.environ,
                "AGIQA_STORE": str(workspace / "ledger"),
                "OMP_NUM_THREADS": "1",  # two threads on busy cores wait for each other
                "PYTHONUNBUFFERED": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        lines: list[str] = []
        ready = threading.Event()

        def read() -> None:
            for line in process.stdout or ():
                lines.append(line)
                if line.startswith("Ready"):
                    ready.set()
            ready.set()

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            assert ready.wait(120), lines
            found = [match for line in lines if (match := re.match(r"http://\S+/", line))]
            assert found, lines
            yield Served(found[0][0].rstrip("/"), process, lines)
        finally:
            process.terminate()
            process.wait(120)
            reader.join(5)
            process.stdout.close()

    return start


@pytest.fixture(scope="session")
def served(serve: Callable[..., object], workspace: Path) -> Iterator[Served]:
    """One server for all tests that leave it as it was."""
    with serve("--max-request", "4", "--max-files", "8") as found:  # type: ignore[attr-defined]
        yield found
