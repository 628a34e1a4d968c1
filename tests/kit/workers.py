"""Processes that a test may kill, starve or hand hostile files to: one imports, its forks work."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
REPOSITORY = TESTS.parent


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
    own, others = [str(REPOSITORY / "pipeline"), str(TESTS)], os.environ.get("PYTHONPATH")
    path = os.pathsep.join([*own, others] if others else own)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


@contextmanager
def open_worker(
    script: Path, python: Sequence[str] = (sys.executable,), **more: str
) -> Iterator[Worker]:
    """A worker that runs the jobs of a script, in an empty folder.

    Not where the test that asks first stands: that one's params.yaml would count for all.
    """
    command = [*python, str(script)]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryDirectory() as empty,
        subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=environment(**more), cwd=empty
        ) as process,
    ):
        yield Worker(process)
