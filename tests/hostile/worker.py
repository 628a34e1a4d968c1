"""The command line over files of an attacker, in processes with limits (kit/forking.py)."""

import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from agiqa.cli import main
from kit.forking import serve

MIB = 2**20


def _memory() -> int:
    """Bytes of this process that are resident now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _limit(megabytes: int, seconds: float) -> None:
    """Bound what this process may allocate beyond what it has, and its processor time."""
    status = Path("/proc/self/status").read_text().split("VmData:")[1]
    data = int(status.split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (data + megabytes * MIB,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * megabytes * MIB,) * 2)


def agiqa(
    arguments: list[str],
    environment: dict[str, str],
    megabytes: int,
    seconds: float,
    folder: str,
) -> dict[str, Any]:
    """Run a command in a folder; `opened` are the files that Python opened."""
    os.chdir(folder)
    os.environ.update(environment)
    opened: list[str] = []

    def watch(event: str, details: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(details[0], str | bytes):
            opened.append(os.fsdecode(details[0]))

    sys.addaudithook(watch)
    before = _memory()
    _limit(megabytes, seconds)
    start = time.monotonic()
    result = CliRunner().invoke(main, arguments)
    unhandled = result.exception if not isinstance(result.exception, SystemExit) else None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "status": result.exit_code,
        "out": result.stdout,
        "err": result.stderr,
        "unhandled": repr(unhandled) if unhandled else "",
        "seconds": time.monotonic() - start,
        "megabytes": max(0, peak - before) // MIB,
        "opened": opened,
    }


if __name__ == "__main__":
    serve(agiqa)
