"""A colleague who has no images fits what another machine extracted: DVC's push and pull.

The pipeline's own dvc.yaml, in git repositories of their own, with stores that stand for a GPU's.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
import yaml

from agiqa.data.datasets.table import read_table
from agiqa.store import write_pack
from kit.command import agiqa
from kit.machines import vectors_of
from kit.processes import AGIQA, DVC

pytest.importorskip("dvc", reason="DVC is not installed: pip install 'agiqa[dvc]'")
REPOSITORY = Path(__file__).resolve().parents[3]
SMALL = {"components": 8, "semantic_components": 4, "epochs": 2}


@pytest.fixture
def command(
    tmp_path: Path, python: list[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Runs a command line in a folder; `agiqa` and `dvc` are those of this Python."""
    scripts, root = tmp_path / "bin", REPOSITORY / "pipeline"
    scripts.mkdir()
    for name, words in (("agiqa", AGIQA), ("dvc", DVC)):
        (scripts / name).write_text(f'#!/bin/sh\nexec {shlex.join([*python, *words])} "$@"\n')
        (scripts / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{scripts}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))  # DVC's, too
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "somebody")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "somebody@example.org")

    def run(folder: Path, line: str) -> str:
        done = subprocess.run(shlex.split(line), cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture
def author(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., str]) -> Path:
    """A repository in which prepare and extract have run; its images are not in git."""
    project = tmp_path / "author"
    shutil.copytree(REPOSITORY / "pipeline", project / "pipeline",
                    ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    shutil.copytree(REPOSITORY / "prompts", project / "prompts")
    (project / ".dvc").mkdir()
    for name in ("dvc.yaml", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        shutil.copy(REPOSITORY / name, project / name)
    (project / ".gitignore").write_text((REPOSITORY / ".gitignore").read_text() + "/images/\n")
    settings = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    csv = {"kind": "csv", "path": "images/labels.csv", "image_column": "file"}
    csv |= {"score_columns": ["mos"], "prompt_column": "prompt"}
    settings |= {"datasets": ["mine"], "protocols": ["grouped"], "sources": {"mine": csv}}
    settings["fit"] |= {"target": "mos", **SMALL}
    settings["splits"]["count"] = 2
    (project / "params.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(project)
    _images(project / "images")
    _agiqa("prepare", "mine", "--only-sources")
    _agiqa("prepare", "mine")
    ids = list(read_table(Path("cache/mine")).frame["image_id"])
    for name in ("nano", "nano-vision"):
        rows = vectors_of(ids)[:, None]
        write_pack(Path(f"cache/mine/{name}.zarr"), name, ["a"], [{"by": name}], ids, rows)
    command(project, "git init -q .")
    command(project, "dvc commit -q -f sources prepare extract_semantic extract_visual")
    return project


def _images(folder: Path) -> None:
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(0)
    names = [f"{row:02d}.png" for row in range(40)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / name)
    prompts = [f"a {row // 2}" for row in range(40)]
    labels = pd.DataFrame({"file": names, "mos": rng.uniform(1, 5, 40), "prompt": prompts})
    labels.to_csv(folder / "labels.csv", index=False)


def _agiqa(*arguments: str, status: int = 0) -> str:
    """`agiqa` in this process, which has torch already."""
    return agiqa(*arguments, status=status).output


@pytest.mark.slow
@pytest.mark.timeout(900)  # some ten processes, each of which loads DVC or torch
def test_a_colleague_pulls_fits_and_reproduces_from_a_bucket(
    author: Path, bucket: str, command: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dvc_s3", reason="dvc-s3 is not installed: pip install 'agiqa[s3]'")
    command(author, f"dvc remote add -d shared s3://{bucket}/dvc")
    assert "files pushed" in command(author, "dvc push")
    assert fsspec.filesystem("s3").find(f"{bucket}/dvc/files")
    command(author, "git add -A")
    command(author, "git commit -qm features")
    command(author.parent, "git clone -q author colleague")
    colleague = author.parent / "colleague"
    assert not (colleague / "images").exists()
    assert [path.name for path in (colleague / "cache").rglob("*.*")] == ["sources.json"]

    said = command(colleague, "dvc repro --pull --allow-missing fit")
    assert "Stage 'extract_semantic@mine' didn't change, skipping" in said
    assert "Running stage 'fit@mine-grouped'" in said
    assert (colleague / "runs/mine/grouped/model.safetensors").is_file()
    assert command(colleague, "git status --short") == " M dvc.lock\n"
    for path in ("images.csv", "dataset.json", "splits/grouped.csv", "nano.zarr/zarr.json"):
        there = (author / "cache/mine" / path).read_bytes()
        assert (colleague / "cache/mine" / path).read_bytes() == there
        assert str(author).encode() not in there  # nothing of the machine in it
    monkeypatch.chdir(colleague)
    assert "evaluate" in _agiqa("fit", "mine", "--protocol", "grouped", "-o", "runs/by-hand")
    refused = _agiqa("extract", "mine", status=1)
    assert "Error: The table of 'mine' came without its images" in refused


def _ran(said: str) -> list[str]:
    """Stages that ran, in order, without the look at the sources that each `dvc repro` takes."""
    ran = re.findall(r"Running stage '(\w+)@", said)
    assert ran[0] == "sources"
    return ran[1:]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_a_user_corrects_reaches_every_result(
    author: Path, command: Callable[..., str]
) -> None:
    """A MOS, an imported split file and an image, edited after all is done."""
    stages = yaml.safe_load((author / "dvc.yaml").read_text())["stages"]
    kept = {name: stages[name] for name in ("sources", "prepare", "fit", "evaluate")}
    (author / "dvc.yaml").write_text(yaml.safe_dump({"stages": kept}))  # packs are there
    settings = yaml.safe_load((author / "params.yaml").read_text())
    splits = pd.read_csv("cache/mine/splits/random.csv")
    first = splits[splits["seed"] == splits["seed"].min()]
    first[["name", "side"]].to_csv("images/smith.csv", index=False)
    settings["sources"]["mine"]["splits"] = {"smith": "images/smith.csv"}
    (author / "params.yaml").write_text(yaml.safe_dump(settings))
    command(author, "git commit -q --allow-empty -m start")  # DVCLive wants one
    assert _ran(command(author, "dvc repro")) == ["prepare", "fit", "evaluate"]
    lock = (author / "dvc.lock").read_bytes()
    os.utime("images/labels.csv")
    os.utime("images/00.png")
    assert _ran(command(author, "dvc repro")) == []  # sizes and bytes are the same
    assert (author / "dvc.lock").read_bytes() == lock

    labels = pd.read_csv("images/labels.csv")
    labels["mos"] = labels["mos"].round(6)
    labels.loc[:, "mos"] = labels["mos"].to_numpy()[::-1]
    labels.to_csv("images/labels.csv", index=False)
    refused = _agiqa("evaluate", "runs/mine/grouped", status=1)
    assert "older than what it was made from: labels.csv has changed since" in refused
    assert _ran(command(author, "dvc repro")) == ["prepare", "fit", "evaluate"]
    tested = pd.read_csv("runs/mine/grouped/predictions.csv").set_index("path")["mos"]
    corrected = labels.set_index("file")["mos"]
    np.testing.assert_allclose(tested, corrected[tested.index], rtol=1e-4)

    splits = pd.read_csv("images/smith.csv")
    splits["side"] = splits["side"].to_numpy()[::-1]
    splits.to_csv("images/smith.csv", index=False)
    assert _ran(command(author, "dvc repro prepare")) == ["prepare"]
    again = pd.read_csv("cache/mine/splits/smith.csv")
    assert again["side"].tolist() == splits["side"].tolist()

    shutil.copy("images/01.png", "images/00.png")
    assert _ran(command(author, "dvc repro prepare")) == ["prepare"]
    ids = read_table(author / "cache/mine").frame["image_id"]
    assert ids[0] == ids[1]

    (author / "images").rename(author / "elsewhere")
    told = command(author, "dvc repro prepare")
    assert _ran(told) == []
    assert "mine: what it is made from is not here, its table stays" in told
