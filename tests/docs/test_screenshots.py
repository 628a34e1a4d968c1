"""`make screenshots` on a run that is there, with wrong input; the real thing needs AGIQA-3K."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "docs/making/screenshots.py"


def test_a_picture_that_is_hard_to_compress_becomes_small_enough(tmp_path: Path) -> None:
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import screenshots
    finally:
        sys.path.remove(str(SCRIPT.parent))
    rough = np.random.default_rng(0).integers(0, 256, (60, 64, 3), dtype=np.uint8)
    noise = Image.fromarray(rough).resize((1280, 1200), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    noise.save(file, "PNG")
    screenshots._save(file.getvalue(), tmp_path / "a.webp")
    assert (tmp_path / "a.webp").stat().st_size < screenshots.MOST_BYTES
    with Image.open(tmp_path / "a.webp") as kept:
        assert kept.size == (1280, 1200)


def test_no_run_is_one_line(tmp_path: Path, python: list[str]) -> None:
    done = subprocess.run(
        [*python, SCRIPT, tmp_path / "none", "--out", tmp_path / "images"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "not a run" in done.stderr
    assert "Traceback" not in done.stderr
