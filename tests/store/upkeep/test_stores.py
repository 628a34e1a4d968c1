"""`agiqa cache ls`, `show`, `gc`: what there is and who uses it; nothing valid is ever removed."""

import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from agiqa.cli import main
from agiqa.core.errors import AgiqaError
from agiqa.store import LockedError, Shelf, digest
from agiqa.store.upkeep.stores import (
    carry_out,
    leftovers,
    orphans_of_shelf,
    plan,
    remove_shelf,
)
from kit.cache_project import Project, agiqa, fingerprint, write_run
from kit.stored_rows import add_rows, flip, make_ids, make_vectors


def listed(*options: str) -> dict[str, dict[str, Any]]:
    result = agiqa("cache", "ls", "--json", *options)
    assert result.exit_code == 0, result.output
    return {Path(row["store"]).name: row for row in json.loads(result.stdout)}


def test_stores_with_their_users(project: Project) -> None:
    with Shelf.open(project.ledger, fingerprint("lonely"), 16).writer() as writer:
        writer.add(project.ids[:7], project.vectors[:7, 0])
    found = listed()
    shelf = found[project.shelf("a").name]
    assert (shelf["kind"], shelf["rows"], shelf["width"]) == ("shelf", 40, 16)
    assert (shelf["vectors"], shelf["used_by"]) == (["a"], ["mine/nano.zarr"])
    assert shelf["fingerprints"] == [digest(fingerprint("a"))]
    files = [path for path in project.shelf("a").rglob("*") if path.is_file()]
    assert shelf["bytes"] == sum(path.stat().st_size for path in files)
    pack = found["nano.zarr"]
    assert (pack["vectors"], pack["used_by"]) == (["a", "b"], ["runs/mine/grouped"])
    lonely = found[project.shelf("lonely").name]
    assert (lonely["rows"], lonely["vectors"], lonely["used_by"]) == (7, [], [])


def test_a_run_of_other_vectors_or_another_data_set_uses_no_pack(project: Project) -> None:
    write_run(Path("runs/mine/other"), "mine", ["a", "c"])
    write_run(Path("runs/yours/grouped"), "yours", ["a"])
    write_run(Path("runs/mine/some"), "mine", ["b"])  # fit.vectors chose one of two
    assert listed()["nano.zarr"]["used_by"] == ["runs/mine/grouped", "runs/mine/some"]
    Path("runs/mine/other/provenance.json").write_text("{")
    result = agiqa("cache", "ls")
    assert "runs/mine/other/provenance.json: says not what the run read" in result.stderr


def test_columns_for_programs(project: Project) -> None:
    rows = [line.split("\t") for line in agiqa("cache", "ls").stdout.splitlines()]
    assert {len(row) for row in rows} == {12}
    assert [row[0] for row in rows] == ["kind", "shelf", "shelf", "pack"]


def test_foreign_damaged_and_busy_stores_are_lines(project: Project) -> None:
    flip(project.shelf("b") / "fingerprint.json", 2)
    (project.ledger / "notes").mkdir()
    (project.ledger / "file.txt").write_text("no folder")
    Path("cache/mine/text.h5").write_text("nonsense")
    Path("cache/mine/gone.zarr").symlink_to("nowhere")
    empty = Shelf.open(project.ledger, fingerprint("empty"), 16).folder
    (empty / "segments").rmdir()  # as what copies files alone leaves it
    with Shelf.at(project.shelf("a")).writer():
        found = listed()
    assert f"process {os.getpid()} on" in found[project.shelf("a").name]["written_by"][0]
    problems = {name: row["problem"] for name, row in found.items() if row["problem"]}
    assert found[empty.name]["bytes"] == (empty / "fingerprint.json").stat().st_size
    assert len(problems) == 4
    assert problems["notes"].startswith("expected a shelf of the ledger, found no fingerprint.json")
    assert "HDF5 cannot read" in problems["text.h5"]
    assert "found nothing" in problems["gone.zarr"]


@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal(project: Project, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    from agiqa.cli.cache.stores import print_tables
    from agiqa.store.upkeep.stores import find_runs, survey

    Shelf.open(project.ledger, fingerprint("What is wrong with this image? " * 5), 16)
    monkeypatch.setenv("COLUMNS", str(columns))
    runs, _ = find_runs([Path("runs")])
    shelves, packs = survey(project.ledger, [Path("cache")], runs)
    with CliRunner().isolation() as (out, *_):
        print_tables(Path("ledger"), shelves, Path("cache"), packs)
        shown = out.getvalue().decode()
    assert max(map(len, shown.splitlines())) <= columns
    for part in ("3 shelves", "mine/nano", "2 x 16 f16", "grouped", 'mean "What is wrong'):
        assert part in shown, shown


def test_show_tells_everything(project: Project) -> None:
    shown = agiqa("cache", "show", project.pack)
    assert shown.exit_code == 0, shown.output
    for part in (
        "40 rows of 2 vectors x 16 float16",
        "used by runs/mine/grouped",
        "libraries.torch  2.13.0",
        f"\na: {digest(fingerprint('a'))}\n  prompt.text  a\n",
    ):
        assert part in shown.stdout, shown.stdout
    shelf = agiqa("cache", "show", project.shelf("b"))
    assert "used by mine/nano.zarr, runs/mine/grouped" in shelf.stdout
    assert "in 1 segment\n" in shelf.stdout
    tree = json.loads(agiqa("cache", "show", digest(fingerprint("b"))[:20], "--json").stdout)
    assert tree["fingerprints"] == [fingerprint("b")]
    assert [segment["rows"] for segment in tree["segments"]] == [40]
    assert json.loads(agiqa("cache", "show", project.pack, "--json").stdout)["extractor"] == "nano"


def test_what_names_no_store(project: Project) -> None:
    for text, message in (
        ("lmm-", "lmm-: expected one shelf, found 2: lmm-"),
        ("zzz", "zzz: neither a file here nor the beginning of a shelf's name"),
        ("cache/mine/images.csv", "expected a pack named *.zarr or *.h5 or a shelf's folder"),
        ("cache/mine", "found neither"),
        ("cache/mine/none.zarr", "no such store; `agiqa cache ls`"),
        ("", "no such store"),
    ):
        result = agiqa("cache", "show", text)
        assert result.exit_code == 1
        assert message in result.stderr, result.stderr
        assert result.stderr.count("\n") == 1


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
    listed, _ = plan(*given)
    assert [orphan.path for orphan in listed] == [lonely]
    write_run(Path("runs/mine/new"), "mine", ["lonely"])
    removed, refused = carry_out(listed, plan(*given)[0])
    assert removed == []
    assert refused == [f"{lonely}: in use now; kept"]
    assert lonely.exists()


FINGERPRINT = {"extractor": "nano"}
WIDTH = 8


def segments(shelf: Shelf) -> set[Path]:
    return set((shelf.folder / "segments").glob("*.safetensors"))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Three segments were merged into one, and two of them restored from a copy."""
    ids, vectors = make_ids(900), make_vectors(900, WIDTH)
    shelf = Shelf.open(tmp_path, FINGERPRINT, WIDTH)
    for start in range(0, 900, 300):
        add_rows(shelf, ids[start : start + 300], vectors[start : start + 300])
    small = sorted(segments(shelf))
    for path in small[:2]:
        shutil.copy(path, tmp_path)
    assert shelf.merge() == 3
    (large,) = segments(shelf)
    for path in small[:2]:
        shutil.move(tmp_path / path.name, path)
    assert not large.name.endswith("-300.safetensors")
    return Shelf.at(shelf.folder)


def test_what_a_damaged_segment_has_as_well_stays(shelf: Shelf) -> None:
    found, _ = orphans_of_shelf(shelf.folder)
    (large,) = (path for path in segments(shelf) if path.name.endswith("-900.safetensors"))
    flip(large, -1)
    for orphan in found:
        with pytest.raises(AgiqaError, match="in greater segments, found damage there; kept"):
            orphan.remove()
    assert len(segments(shelf)) == 3


def test_a_shelf_being_written_is_passed_over(shelf: Shelf, tmp_path: Path) -> None:
    found, _ = orphans_of_shelf(shelf.folder)
    before = segments(shelf)
    for rank in (0, 1):
        with Shelf.open(tmp_path, FINGERPRINT, WIDTH, rank=rank).writer():
            there, busy = orphans_of_shelf(shelf.folder)
            assert there == []
            assert busy == [f"{shelf.folder}: being written by {busy[0].partition(' by ')[2]}"]
            with pytest.raises(LockedError, match=f"process {os.getpid()} on"):
                found[0].remove()
            with pytest.raises(LockedError, match=f"process {os.getpid()} on"):
                remove_shelf(shelf.folder)
    assert segments(shelf) == before
    for orphan in found:
        orphan.remove()
    assert orphans_of_shelf(shelf.folder) == ([], [])
    np.testing.assert_array_equal(shelf.read(make_ids(900)), make_vectors(900, WIDTH))
    remove_shelf(shelf.folder)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_are_old_and_hidden(tmp_path: Path) -> None:
    for name in (".nano.zarr.x1.partial", ".new.partial", "nano.zarr.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"12345")
    (tmp_path / ".pack.h5.partial").write_bytes(b"123")
    long_ago = time.time() - 7200
    for name in (".nano.zarr.x1.partial", "nano.zarr.partial", ".pack.h5.partial"):
        os.utime(tmp_path / name, (long_ago, long_ago))
    found = leftovers(tmp_path)
    assert [(each.path.name, each.size) for each in found] == [
        (".nano.zarr.x1.partial", 5),
        (".pack.h5.partial", 3),
    ]
    for orphan in found:
        orphan.remove()
    assert {path.name for path in tmp_path.iterdir()} == {".new.partial", "nano.zarr.partial"}


def test_a_reader_meets_no_gap_while_segments_are_merged(tmp_path: Path) -> None:
    """One that has listed them, too: what it misses then it finds in the larger one."""
    ids, vectors = make_ids(120), make_vectors(120, WIDTH)
    stop, seen, failures = threading.Event(), [0, 0], list[BaseException]()
    writing = Shelf.open(tmp_path, FINGERPRINT, WIDTH)
    add_rows(writing, ids[:8], vectors[:8])

    def read(reader: int) -> None:
        shelf = Shelf.open(tmp_path, FINGERPRINT, WIDTH)
        try:
            while not stop.is_set():
                there = sorted(shelf.ids(), key=ids.index)
                found = shelf.read(there)
                assert len(there) >= seen[reader]
                np.testing.assert_array_equal(found, vectors[[ids.index(name) for name in there]])
                seen[reader] = len(there)
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read, args=(number,)) for number in range(2)]
    for thread in readers:
        thread.start()
    for start in range(8, 120, 8):
        with writing.writer() as writer:
            for row in range(start, start + 8):
                writer.add(ids[row : row + 1], vectors[row : row + 1])
                writer.flush()
        writing.merge()
    stop.set()
    for thread in readers:
        thread.join()
    assert failures == []
    assert len(segments(writing)) == 1
