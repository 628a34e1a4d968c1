"""Ledgers of layout 1, as agiqa kept them before segments: taken over once, whatever is wrong."""

import contextlib
import json
import os
import random
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from agiqa.cli import main
from agiqa.core.errors import AgiqaError
from agiqa.store import Shelf
from agiqa.store.ledger.layout1 import OldShelf
from agiqa.store.upkeep.merge import add_vector, merge
from kit.stored_rows import make_ids, make_vectors

DATA = Path(__file__).parent / "data" / "layout-1"  # written by agiqa of 2026-11-27
IDS, VECTORS = make_ids(40), make_vectors(40, 4)
NANO = {"extractor": "nano", "prompt": "Describe the image."}
THERE = [row for row in range(30) if row != 2]  # two sections; row 2 was dropped


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA, tmp_path / "old"))


def test_every_row_is_taken_over_once(old: Path, tmp_path: Path) -> None:
    root, before = tmp_path / "new", sorted(old.rglob("*"))
    found = {each.source.name[:4]: each.rows for each in merge([old], root)}
    assert {name: (rows.rows, rows.added) for name, rows in found.items()} == {
        "nano": (29, 29),
        "visi": (10, 10),
    }
    nano = Shelf.open(root, NANO, 4)
    assert nano.ids() == {IDS[row] for row in THERE}
    np.testing.assert_array_equal(nano.read([IDS[row] for row in THERE]), VECTORS[THERE])
    vision = Shelf.open(root, {"extractor": "vision", "layer": 3}, 2, "float32")
    np.testing.assert_array_equal(
        vision.read(IDS[30:]), make_vectors(10, 2, dtype="float32", seed=1)
    )
    assert sorted(old.rglob("*")) == before
    again = merge([old], root)
    assert [(each.rows.added, each.rows.present) for each in again] == [(0, 29), (0, 10)]


def test_the_commands_name_it_and_none_touches_it(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGIQA_STORE", str(old))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "40")  # a path is never broken
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    for command in (["ls"], ["verify"], ["verify", "--repair"], ["gc", "--yes"], ["show", "nano"]):
        done = CliRunner().invoke(main, ["cache", *command])
        said = " ".join((done.output + done.stderr).split())
        assert f"mv {old} {old}-1 && agiqa cache merge {old}-1" in said, command
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before
    old.rename(f"{old}-1")
    done = CliRunner().invoke(main, ["cache", "merge", f"{old}-1"])
    assert done.exit_code == 0, done.output
    assert "29 rows, 29 added" in done.output


def test_rows_that_fit_their_checksums_come_whatever_is_flipped_or_cut(old: Path) -> None:
    chances, most, least = random.Random(0), 0, 29
    (shelf,) = old.glob("nano-*")
    files = [path for path in shelf.rglob("*") if path.is_file()]
    for trial in range(150):
        path = chances.choice(files)
        whole = path.read_bytes()
        data = bytearray(whole)
        if trial % 3:
            data[chances.randrange(len(data))] ^= 1 << chances.randrange(8)
        else:
            del data[chances.randrange(len(data)) :]
        path.write_bytes(data)
        found = []
        with contextlib.suppress(AgiqaError):
            found = list(OldShelf(shelf).blocks(IDS))
        rows = 0
        for names, vectors in found:
            rows += len(names)
            np.testing.assert_array_equal(vectors, VECTORS[[IDS.index(name) for name in names]])
        most, least = max(most, rows), min(least, rows)
        path.write_bytes(whole)
    assert (most, least) == (30, 0)  # 30: the line that dropped a row was damaged


STRANGE: list[Any] = [None, True, -1, 2**63, 0.5, "", "x", [], [[]], {}, [IDS[0], True], [2**32]]


def test_no_field_of_a_journal_is_trusted(old: Path, tmp_path: Path) -> None:
    (shelf,) = old.glob("nano-*")
    journal = shelf / "journal.jsonl"
    whole = journal.read_bytes()
    line = {"first": 100, "ids": ["a" * 64, "b" * 64], "crc32": [1, 2]}
    for entry in (line, {"dropped": IDS[:1]}):
        for field in [*entry, "stranger"]:
            for value in STRANGE:
                body = json.dumps(entry | {field: value}, separators=(",", ":")).encode()
                journal.write_bytes(whole + b'{"check":"%08x",%b\n' % (zlib.crc32(body), body[1:]))
                found = add_vector(OldShelf(shelf), tmp_path / "new")
                assert found.added + found.present >= 28
    np.testing.assert_array_equal(
        Shelf.open(tmp_path / "new", NANO, 4).read([IDS[row] for row in THERE]), VECTORS[THERE]
    )


@pytest.mark.parametrize("name", ["journal.jsonl", "fingerprint.json", "vectors", "part-1"])
def test_links_and_pipes_are_refused(old: Path, name: str, tmp_path: Path) -> None:
    (shelf,) = old.glob("nano-*")
    (shelf / name).rename(shelf / "aside")
    (shelf / name).symlink_to(shelf / "aside")
    with pytest.raises(AgiqaError, match="found a link"):
        OldShelf(shelf)
    if name.count("."):
        (shelf / name).unlink()
        os.mkfifo(shelf / name)
        with pytest.raises(AgiqaError, match="found a pipe"):
            OldShelf(shelf)
    assert merge([old], tmp_path / "new")[0].rows.refused


def test_an_endless_journal_takes_no_memory(old: Path) -> None:
    (shelf,) = old.glob("nano-*")
    os.truncate(shelf / "journal.jsonl", 1 << 40)
    with pytest.raises(AgiqaError, match="expected a journal, found more than"):
        OldShelf(shelf)
