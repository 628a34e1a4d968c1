"""What tensors free is kept for the next ones, in a process of its own: it holds for all of it."""

import ctypes
import subprocess
import sys

import pytest

COUNT = """
import resource
import numpy as np
from agiqa.core.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(8_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

handed_back = faults()
keep_freed_memory()
faults()
print(handed_back, faults())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc's mallopt alone does")
def test_freed_memory_is_not_fetched_anew() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    handed_back, kept = map(int, done.stdout.split())
    assert handed_back > 100
    assert kept < handed_back / 20
