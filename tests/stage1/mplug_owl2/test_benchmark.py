"""The benchmark runs at its reduced size, and its two ways agree."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "mplug_owl2.py"


def test_it_measures_both_ways_side_by_side(
    write_images: Callable[..., Path], python: list[str]
) -> None:
    images = write_images("a.png", "b.png", "c.png")
    command = [*python, str(SCRIPT), "--tiny", "--rounds", "1", "--images", str(images)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert re.search(r"ours: [\d.]+ images/s, [\d.]+ TFLOP an image.*% of the measured", printed)
    assert re.search(r"the reference's way takes [\d.]+ times as long", printed)
    assert "3 image files, decoding and store included" in printed
    difference = re.search(r"difference of a vector's element between the two: (\S+)", printed)
    assert difference is not None
    assert float(difference[1]) < 1e-5
