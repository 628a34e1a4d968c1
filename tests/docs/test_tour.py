"""The notebook of the tour runs from its first cell to its last, and keeps no large outputs."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agiqa.core.params import Semantic, Visual
from agiqa.data.datasets.table import read_table
from agiqa.stage1.extract import missing_rows
from agiqa.stage1.extractors import VisionExtractor, semantic_extractor
from kit.command import agiqa

TOUR = Path(__file__).parents[2] / "docs/tour.ipynb"
MOST_BYTES = 200_000
# In a process of its own: Jupyter's sockets are closed when it ends. They are files, not ports.
KERNEL = "from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
EXECUTE = """
import sys, nbclient, nbformat
from jupyter_client import AsyncKernelManager
notebook = nbformat.read(sys.argv[1], as_version=4)
manager = AsyncKernelManager(kernel_name="python3", transport="ipc")
nbclient.NotebookClient(notebook, km=manager, timeout=800).execute()
nbformat.write(notebook, sys.argv[2])
"""


def test_the_notebook_is_small_and_keeps_no_error_and_no_place() -> None:
    text = TOUR.read_text(encoding="utf-8")
    assert len(text) < MOST_BYTES
    kinds = [
        (cell["id"], output["output_type"])
        for cell in json.loads(text)["cells"]
        for output in cell.get("outputs", [])
    ]
    assert kinds
    assert "error" not in dict(kinds).values()
    assert str(Path.home()) not in text


@pytest.fixture
def runtime(python: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Jupyter's own folders, short enough for the sockets in them, and its kernel."""
    folder = Path(tempfile.mkdtemp(prefix="tour-"))
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(folder / name[:9].lower()))
    monkeypatch.setenv("TMPDIR", str(folder))
    kernel = folder / "jupyter_d/kernels/python3/kernel.json"
    kernel.parent.mkdir(parents=True)
    words = [*python, "-c", KERNEL, "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": words, "display_name": "", "language": "python"}))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.nano
@pytest.mark.timeout(900)
def test_the_tour_runs(
    runtime: Path, python: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the demo's vectors in the ledger half a minute; without them it takes ten, so it is left
    out unless AGIQA_TOUR is set."""
    monkeypatch.chdir(tmp_path)
    if not os.environ.get("AGIQA_TOUR"):
        _require_cached_vectors()
    done = subprocess.run(
        [*python, "-c", EXECUTE, TOUR, tmp_path / "done.ipynb"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    cells = json.loads((tmp_path / "done.ipynb").read_text())["cells"]
    said = "".join(
        "".join(output.get("text", "")) for cell in cells for output in cell.get("outputs", [])
    )
    scored = {
        line.split()[0]: float(line.split()[1])
        for line in said.splitlines()
        if line.startswith("astronaut_") and " to " in line
    }
    assert scored["astronaut_original.jpg"] == max(scored.values())
    assert len(scored) == 4
    assert "runs/demo/whole against runs/demo/closeup" in said
    assert list(runtime.glob("agiqa-tour-*/ranking.html"))


def _require_cached_vectors() -> None:
    agiqa("--quiet", "prepare", "demo")
    table, missing = read_table(Path("cache/demo")), 0
    for extractor in (semantic_extractor(Semantic()), VisionExtractor(Visual())):
        _, jobs = missing_rows(table, extractor, None)
        missing += sum(len(job.wanted) * len(job.image_ids) for job in jobs)
    if missing:
        pytest.skip(f"the ledger lacks {missing} of the demo's vectors: `make demo` first")
