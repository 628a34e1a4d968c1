"""`agiqa cache gc`: what it lists is what it removes, and vectors stay unless asked for."""

import json
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from agiqa.cli import main
from agiqa.store import Shelf
from agiqa.store.upkeep.clearing import carry_out, plan
from kit.cache_project import Project, agiqa, fingerprint, write_run
from kit.stored_rows import add_rows, flip

OLD = time.time() - 90 * 86400


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def age(folder: Path) -> None:
    os.utime(folder / "segments", (OLD, OLD))


@pytest.fixture
def lonely(project: Project) -> Path:
    """A shelf that nothing uses, three months old."""
    shelf = Shelf.open(project.ledger, fingerprint("lonely"), 16)
    add_rows(shelf, project.ids, project.vectors[:, 0])
    age(shelf.folder)
    return shelf.folder


def test_the_real_run_removes_exactly_what_the_dry_run_said(project: Project, lonely: Path) -> None:
    shelf = Shelf.at(project.shelf("a"))
    twice = shelf.files.folder / shelf.rows.add(project.ids[:9], project.vectors[:9, 0])
    left = shelf.files.folder / ".killed.partial"
    left.write_bytes(bytes(10))
    os.utime(left, (OLD, OLD))
    stale = Path("cache/mine/.nano.zarr.x.partial")
    stale.mkdir()
    (stale / "chunk").write_bytes(bytes(100))
    os.utime(stale, (OLD, OLD))
    empty = Shelf.open(project.ledger, fingerprint("never extracted"), 16).folder
    age(empty)
    Shelf.open(project.ledger, fingerprint("about to be"), 16)
    options = ["cache", "gc", "--unused", "--json"]
    before = size(project.ledger) + size(Path("cache"))
    said = json.loads(agiqa(*options, "--dry-run").stdout)
    assert size(project.ledger) + size(Path("cache")) == before
    gone = {str(stale), str(twice), str(left), str(empty), str(lonely)}
    assert {item["path"] for item in said["items"]} == gone
    done = json.loads(agiqa(*options, "--yes").stdout)
    assert done["items"] == said["items"]
    assert before - size(project.ledger) - size(Path("cache")) == said["bytes"]
    assert not any(Path(path).exists() for path in gone)
    assert agiqa("cache", "verify").exit_code == 0


def test_used_young_and_busy_shelves_stay(project: Project, lonely: Path) -> None:
    for prompt in "ab":
        age(project.shelf(prompt))
    project.pack.rename("elsewhere.zarr")  # the run still names both
    assert "can go: 1 item" in agiqa("cache", "gc", "--unused", "--dry-run").stdout
    assert "nothing can go" in agiqa("cache", "gc", "--unused", "--older-than", "30w").stdout
    write_run(Path("other/runs/mine"), "mine", ["lonely"])
    both = agiqa("cache", "gc", "--unused", "--runs", "runs", "--runs", "other/runs", "--dry-run")
    assert "nothing can go" in both.stdout
    with Shelf.at(lonely).writer():
        busy = agiqa("cache", "gc", "--unused", "--older-than", "0h", "--yes")
    assert f"kept: {lonely}: being written by process {os.getpid()}" in busy.stdout
    assert "nothing can go" in busy.stdout
    (lonely / "notes.txt").write_text("mine")
    kept = agiqa("cache", "gc", "--unused", "--older-than", "0h", "--yes")
    assert "found notes.txt; move it away" in kept.stdout
    assert len(Shelf.at(lonely).ids()) == 40


@pytest.mark.parametrize("damage", ["pack", "run", "folder"])
def test_unused_is_refused_where_nobody_knows(project: Project, lonely: Path, damage: str) -> None:
    options = []
    if damage == "pack":
        flip(project.pack / "zarr.json", 300)
    elif damage == "run":
        Path("runs/mine/grouped/provenance.json").write_text("{}")
    else:
        options = ["--cache", "cahce"]
    result = agiqa("cache", "gc", "--unused", "--yes", *options)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert ("no such folder" if damage == "folder" else "cannot be read") in result.stderr
    assert len(Shelf.at(lonely).ids()) == 40


def test_nothing_goes_unasked(project: Project, lonely: Path) -> None:
    result = agiqa("cache", "gc", "--unused")
    assert result.exit_code == 1
    assert "expected --yes, or a terminal to ask at; nothing was removed" in result.stderr
    assert lonely.exists()
    wrong = CliRunner().invoke(main, ["cache", "gc", "--older-than", "soon"])
    assert wrong.exit_code == 2
    assert "'soon' is no age such as 12h, 30d or 8w" in wrong.stderr


def test_what_is_used_between_list_and_yes_stays(project: Project, lonely: Path) -> None:
    given = (project.ledger, [Path("cache")], [Path("runs")], True, 0.0)
    listed = plan(*given)
    assert [orphan.path for orphan in listed.orphans] == [lonely]
    write_run(Path("runs/mine/new"), "mine", ["lonely"])
    removed, refused = carry_out(listed, plan(*given))
    assert removed == []
    assert refused == [f"{lonely}: in use now; kept"]
    assert lonely.exists()
