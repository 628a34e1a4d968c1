"""`agiqa cache ls` and `show`: what there is, who uses it, and what is damaged."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agiqa.store import Shelf, digest
from kit.cache_project import Project, agiqa, fingerprint, write_run
from kit.stored_rows import flip


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
