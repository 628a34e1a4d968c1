"""A DVC stage that fails after extract, then `git add -A`: no vectors in git.

When a stage fails, DVC 3 takes back the ignore lines that the stages before it wrote; only the
project's own, static .gitignore keeps `cache/` out.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.processes import DVC

REPOSITORY = Path(__file__).parents[2]

STAGES = """
stages:
  extract:
    cmd: '{python} pack.py'
    outs: [cache/ours/nano.zarr, cache/ours/nano.h5]
  fit:
    cmd: exit 3
    deps: [cache/ours/nano.zarr, cache/ours/nano.h5]
    outs: [runs/ours/model.safetensors]
"""
PACK = """
from pathlib import Path
from agiqa.store import write_pack
from kit.stored_rows import make_ids, make_vectors

for suffix in (".zarr", ".h5"):
    path = Path("cache/ours") / f"nano{suffix}"
    write_pack(path, "nano", ["a"], [{}], make_ids(300), make_vectors(300, 1, 8))
"""


def test_git_add_after_a_stage_that_fails(
    tmp_path: Path, count: Callable, python: list[str]
) -> None:
    pytest.importorskip("dvc")
    path = os.pathsep.join([str(REPOSITORY / "pipeline"), str(REPOSITORY / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "DVC_NO_ANALYTICS": "1", "HOME": str(tmp_path)}

    def run(*command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, cwd=work, env=environment, capture_output=True, text=True, timeout=600
        )

    work = tmp_path / "work"
    work.mkdir()
    for name in (".gitignore", ".dvc/config", ".dvc/.gitignore", ".dvcignore"):
        (work / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, work / name)
    (work / "dvc.yaml").write_text(STAGES.format(python=shlex.join(python)))
    (work / "pack.py").write_text(PACK)
    assert run("git", "init", "--quiet").returncode == 0
    done = run(*python, *DVC, "repro")
    assert done.returncode != 0
    assert "exited with 3" in done.stderr + done.stdout, done.stderr
    packed = [path for path in (work / "cache").rglob("*") if path.is_file()]
    assert len(packed) > 5

    def staged() -> list[str]:
        assert run("git", "add", "-A").returncode == 0
        return run("git", "diff", "--cached", "--name-only").stdout.splitlines()

    mine = [name for name in staged() if name.startswith(("cache/", "runs/", ".dvc/cache"))]
    (work / ".gitignore").unlink()
    without = [name for name in staged() if name.startswith("cache/")]
    assert without, "the test would not notice: DVC kept its own ignore lines"
    count(files_in_cache=len(packed), staged=len(mine), staged_without_ours=len(without))
    assert mine == []
