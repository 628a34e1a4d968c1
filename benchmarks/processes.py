"""What a whole process costs.

No torch here: Linux counts the memory of the process that starts another one into its peak.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence


def cost_of(command: Sequence[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak MiB of a process; what it prints is dropped.

    Raises:
        SystemExit: it failed.
    """
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} failed ({child.returncode})")
    scale = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    wall, busy = time.perf_counter() - started, usage.ru_utime + usage.ru_stime
    return wall, busy, usage.ru_maxrss * scale / 2**20
