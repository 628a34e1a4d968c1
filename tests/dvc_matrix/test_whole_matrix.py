"""Five data sets, two LMMs, two protocols through one `dvc repro`, killed twice and resumed.

The pipeline's own dvc.yaml over official downloads in small, with tiny LMMs, up to the metrics: 60
stages. Their commands are processes, forked from one that has everything imported.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from agiqa.store import Shelf
from kit import official_downloads
from kit.processes import IMPORT_DVC

pytest.importorskip("dvc", reason="DVC is not installed: pip install 'agiqa[dvc]'")
REPOSITORY = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
PROTOCOLS = ("grouped", "random")
SMALL = {
    "components": 4,
    "semantic_components": 4,
    "epochs": 1,
}
VECTORS = {"semantic": 2, "other": 2, "visual": 4}  # two prompts; two layers, whole and close up
EXTRACTIONS, RUNS = 3, 2  # a data set: two LMMs and the backbone; a protocol: two LMMs


@pytest.fixture
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build_lmm: Callable[..., Path]
) -> Path:
    """The pipeline over five data sets and two LMMs, nothing run yet."""
    folder, shelf = tmp_path / "project", tmp_path / "shelf"
    shutil.copytree(REPOSITORY / "prompts", folder / "prompts")
    (folder / ".dvc").mkdir()
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    for stage in stages.values():  # no code: it stays as it is, and DVC hashes it for each stage
        deps = stage.get("deps", [])
        stage["deps"] = [dep for dep in deps if not dep.startswith("pipeline/")]
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    config = (REPOSITORY / ".dvc/config").read_text().replace("[core]", "[core]\n    no_scm = true")
    (folder / ".dvc/config").write_text(config)
    official_downloads.agiqa_3k(shelf / "agiqa-3k", prompts=20)
    official_downloads.aigiqa_20k(shelf / "aigiqa-20k", prompts=15)
    official_downloads.aigciqa2023(shelf / "aigciqa2023", one_image_a_prompt=True)
    official_downloads.koniq_10k(shelf / "koniq-10k", images=25)
    official_downloads.spaq(shelf / "spaq", images=60)
    model = str(build_lmm(tmp_path / "models" / "one"))
    other = str(build_lmm(tmp_path / "models" / "other", kind="Llava", seed=1))
    stage_1 = {"model": model, "batch_size": 4, "workers": 0, "format": "zarr"}
    settings = {  # what is not default, and what dvc.yaml names: DVC reads it some hundred times
        "datasets": sorted(path.name for path in shelf.iterdir()),
        "protocols": list(PROTOCOLS),
        "sources": {},
        "prepare": {"workers": 2},
        "splits": {"count": 1},
        "semantic": {"name": "tiny", "prompts": "ma_agiqa", **stage_1},
        "extractors": {"tiny-llava": {"model": other}},
        "visual": {"name": "tiny-vision", "layers": [1, 3], "image_size": 48, "closeup": 64}
        | stage_1,
        "fit": SMALL,
        "paper": {"workers": 1},
        "tuned": {},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("AGIQA_DATA", str(shelf))
    monkeypatch.setenv("AGIQA_STORE", str(tmp_path / "ledger"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))  # DVC's, too
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


@pytest.fixture
def _commands(
    project: Path, tmp_path: Path, python: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`agiqa` on the PATH, as commands.py has it."""
    agiqa = tmp_path / "bin" / "agiqa"
    agiqa.parent.mkdir()
    agiqa.write_text(f'#!/bin/sh\nexec {shlex.join([*python, str(HERE / "commands.py")])} "$@"\n')
    agiqa.chmod(0o755)
    monkeypatch.setenv("PATH", f"{agiqa.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("AGIQA_COMPUTED", str(tmp_path / "computed"))


def _start(project: Path, python: list[str]) -> "subprocess.Popen[str]":
    """`dvc repro` in a process group of its own."""
    with (project.parent / "dvc.log").open("w") as log:
        command = [*python, *IMPORT_DVC, str(HERE / "quick_dvc.py"), "repro"]
        command += ["evaluate", "evaluate_other"]
        return subprocess.Popen(command, cwd=project, text=True, stdout=log, stderr=log,
                                process_group=0)  # fmt: skip


def _repro(project: Path, python: list[str]) -> str:
    status = _start(project, python).wait(timeout=1500)
    said = (project.parent / "dvc.log").read_text()
    assert status == 0, said
    return said


def _killed_when(project: Path, python: list[str], reached: Callable[[], bool]) -> None:
    """Start `dvc repro`, and kill it with all that it started once it is so far."""
    process = _start(project, python)
    until = time.monotonic() + 1200
    while not reached():
        said = (project.parent / "dvc.log").read_text
        assert process.poll() is None, said()
        assert time.monotonic() < until, said()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def _rows(ledger: Path) -> set[str]:
    """Shelf and image of each row that lies in the ledger."""
    shelves = [Shelf.at(folder.parent) for folder in ledger.glob("[!.]*/segments")]
    return {f"{shelf.folder.name} {row_id}" for shelf in shelves for row_id in shelf.ids()}


def _computed(project: Path) -> list[str]:
    """Shelf and image of each row in the order in which they were computed (commands.py)."""
    log = project.parent / "computed"
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("_commands")
def test_each_row_is_computed_once(project: Path, python: list[str]) -> None:
    ledger = project.parent / "ledger"

    def results() -> int:
        # Folders come and go meanwhile, which rglob does not like.
        return sum("predictions.csv" in names for _, _, names in os.walk(project / "runs"))

    _killed_when(project, python, lambda: len(_computed(project)) > 500)
    first, before_first = _rows(ledger), len(_computed(project))
    _killed_when(project, python, lambda: results() >= 5)
    assert results() < 5 * len(PROTOCOLS) * RUNS
    second, before_second = _rows(ledger), len(_computed(project))
    assert first <= second
    _repro(project, python)

    rows, computed, distinct = _rows(ledger), _computed(project), 0
    assert set(computed) == rows
    assert not first.intersection(computed[before_first:])  # what lay there was not done again
    assert not second.intersection(computed[before_second:])
    assert len(computed) - len(rows) <= 2 * 2 * 4 * 4  # two kills, two at work, a batch of 4 each
    for dataset in yaml.safe_load((project / "params.yaml").read_text())["datasets"]:
        distinct += pd.read_csv(project / "cache" / dataset / "images.csv")["image_id"].nunique()
        for protocol in PROTOCOLS:
            for extractor in ("", "tiny-llava"):
                run = project / "runs" / dataset / extractor / protocol
                metrics = json.loads((run / "metrics.json").read_text())
                assert (metrics["dataset"], metrics["protocol"]) == (dataset, protocol)
                made = json.loads((run / "provenance.json").read_text())["stores"]
                assert made["semantic"]["extractor"] == (extractor or "tiny")
    assert 400 < len(first) < len(rows)
    assert len(rows) == distinct * sum(VECTORS.values())

    before = {path: path.stat().st_mtime_ns for path in ledger.rglob("*.safetensors")}
    again = re.findall(r"Running stage '(\w+)@", _repro(project, python))
    assert again == ["sources"] * len(list((project / "cache").iterdir()))  # the look alone
    assert {path: path.stat().st_mtime_ns for path in ledger.rglob("*.safetensors")} == before
