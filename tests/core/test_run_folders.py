"""Runs are found while others come and go; names of data sets and targets are folders' names."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agiqa.core.errors import AgiqaError
from agiqa.core.run_folders import data_set_name, provenance_files, target_name
from agiqa.data.datasets.origin import ALIASES, KINDS


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


@pytest.mark.parametrize("name", [*KINDS, *ALIASES, "my-set_2", "7", "A" * 64])
def test_names_of_data_sets(name: str) -> None:
    assert data_set_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "a.b", "a b", "a/b", "../a", "/a", "-a", "_a", "a\\b", "${a}", "a+b", "a@b",
        "a\n", "a;b", "ä", "a" * 65, "a:b", "~a", None, 3,
    ],
)  # fmt: skip
def test_no_names_of_data_sets(name: object) -> None:
    with pytest.raises(AgiqaError, match=r"^NAME: expected a plain name, found "):
        data_set_name(name, "NAME")


def test_names_of_targets() -> None:
    for name in ("mos", "MOS (1-5)", "q&a", "Qualität", "自然さ", "a.b"):
        assert target_name(name, "t.csv") == name
    for odd in (
        "",
        " mos",
        "mos ",
        "a/b",
        "..",
        ".a",
        "-a",
        "a,b",
        "a\x1b[2J",
        "a\u200b",
        "é" * 51,
        3,
    ):
        with pytest.raises(AgiqaError, match=r"^t\.csv: expected the name of a score"):
            target_name(odd, "t.csv")
