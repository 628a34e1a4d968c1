"""Hostile files, and what agiqa does with them: no code runs, nothing outside the root is read,
each ends in one line under the stated time and memory. README.md lists kinds and tests."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kit.tiny_workspace import RUN
from kit.workers import Worker, open_worker


@dataclass(frozen=True)
class Outcome:
    """What a command did with hostile files."""

    status: int  # its exit status; minus the signal that ended it
    out: str
    err: str
    seconds: float
    megabytes: int  # resident memory at its peak, above what the process had before
    opened: list[str]  # files that Python opened

    @property
    def error(self) -> str:
        """The one line in which the command ended."""
        lines = [line for line in self.err.splitlines() if line.startswith("Error: ")]
        assert self.status in (1, 2), (self.status, self.out, self.err)
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err + self.out
        return lines[0]


class Canary:
    """A file that only an attacker's code makes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.code = (
            f"__import__('pathlib').Path({str(path)!r}).touch()"  # Python that gives it away
        )

    @property
    def ran(self) -> bool:
        """Whether the code has run."""
        return self.path.exists()


@pytest.fixture(scope="session")
def workspace(tiny_workspace: Path) -> Path:
    """A working folder with the data set `mine` and a run of it; not to be changed."""
    return tiny_workspace


@pytest.fixture
def good_run(workspace: Path, tmp_path: Path) -> Path:
    """A copy of its run, for an attacker to change."""
    return Path(shutil.copytree(workspace / RUN, tmp_path / "run"))


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    """Code that must not run; checked again at the test's end."""
    bird = Canary(tmp_path / "the-code-has-run")
    yield bird
    assert not bird.ran


@pytest.fixture(scope="session")
def command_line(tmp_path_factory: pytest.TempPathFactory, python: list[str]) -> Iterator[Worker]:
    """A worker that runs `agiqa` (worker.py), offline."""
    hub = tmp_path_factory.mktemp("hub")
    with open_worker(
        Path(__file__).with_name("worker.py"),
        python,
        HF_HOME=str(hub),
        HF_HUB_CACHE=str(hub / "hub"),
        HF_HUB_OFFLINE="1",
    ) as opened:
        yield opened


@pytest.fixture
def attack(
    command_line: Worker, tmp_path: Path, count: Callable[..., None]
) -> Callable[..., Outcome]:
    """Runs `agiqa ARGUMENTS` in `tmp_path`, within seconds and MiB; asserts that they held.

    Time is the command's own processor time (the kernel ends it there); by the clock it may be
    more on a busy machine. The counts stand at the end of pytest's output.
    """
    peaks: list[int] = []

    def run(
        *arguments: object, seconds: float = 30, megabytes: int = 512, **environment: str
    ) -> Outcome:
        environment.setdefault("AGIQA_STORE", str(tmp_path / "ledger"))
        words = [str(argument) for argument in arguments]
        command_line.start("agiqa", words, environment, megabytes, seconds, str(tmp_path))
        status = command_line.wait()
        assert status == 0, f"agiqa {' '.join(words)} was ended by signal {-status}"
        told = command_line.said
        assert not told["unhandled"], f"not one line but {told['unhandled']}"
        assert told["megabytes"] <= megabytes
        peaks.append(told["megabytes"])
        count(commands=len(peaks), peak_MiB=max(peaks), code_run=0)
        return Outcome(**{name: told[name] for name in Outcome.__dataclass_fields__})

    return run
