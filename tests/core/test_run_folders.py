"""Runs are found while others come and go."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agiqa.core.run_folders import provenance_files


def _run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "provenance.json").touch()
    return folder / "provenance.json"


def test_runs_and_those_inside_them(tmp_path: Path) -> None:
    expected = [_run(tmp_path / name) for name in ("a/.new.partial", "a/targets/align", "b", "c/d")]
    (tmp_path / "e").mkdir()
    assert provenance_files(tmp_path) == sorted(expected)
    assert provenance_files(tmp_path / "nowhere") == []


def test_a_folder_that_vanishes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, gone = _run(tmp_path / "a"), _run(tmp_path / "b" / ".new.partial")
    scan = os.scandir

    def scandir(path: str) -> Iterator[os.DirEntry[str]]:
        if str(path).endswith(".partial"):
            shutil.rmtree(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert provenance_files(tmp_path) == [kept]
    assert not gone.exists()
