"""The benchmark runs at its smallest size, and its two ways give the same scores."""

import re
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[4] / "benchmarks" / "regressor.py"
# Each way's process is a fork: a spawned one imports torch anew, which takes longer than the rest.
FORKED = """
import multiprocessing, runpy, sys
context = multiprocessing.get_context
multiprocessing.get_context = lambda _: context("fork")
script = sys.argv.pop(1)
sys.path[0] = script.rpartition("/")[0]
runpy.run_path(script, run_name="__main__")
"""


def test_it_measures_both_ways_side_by_side(python: list[str]) -> None:
    options = ["--size", "tiny", "--batch-size", "2", "--rounds", "1"]
    command = [*python, "-c", FORKED, str(SCRIPT), *options]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    difference = re.search(r"difference between the two ways' scores: (\S+) of their sd", printed)
    assert difference is not None
    assert float(difference[1]) < 1e-4
    for way in ("reference", "ours"):
        row = rf" {way}( +[\d.]+ s){{4}} +[\d.]+ GB, +[\d.]+ GB"
        assert re.search(row, printed), printed
        assert re.search(rf"^{way}: [\d.]+ images/s in training steps", printed, re.MULTILINE)
    assert re.search(r"reference / ours\n( +[\d.]+x){4} +[\d.]+x, +[\d.]+x", printed)
