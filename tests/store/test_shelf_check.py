"""Checks of shelves: every kind of damage is found, nothing whole is accused, repairs save rows."""

import contextlib
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.store import LockedError, Shelf
from agiqa.store.checks import check_shelf, repair_shelf
from agiqa.store.ledger.segments import Kind, build
from agiqa.store.ledger.shelf_folders import read_description
from kit.stored_rows import add_rows, flip_rows, make_ids, make_vectors

FINGERPRINT = {"extractor": "nano", "prompt": "Qualité?", "mean": [0.00392156862745098, 1e-05]}
ROWS, WIDTH = 600, 16
LARGE = 400  # rows of the first segment


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Two segments, of 400 and of 200 rows."""
    ids, vectors = make_ids(ROWS), make_vectors(ROWS, WIDTH)
    shelf = Shelf.open(tmp_path, FINGERPRINT, WIDTH)
    for rows in (slice(0, LARGE), slice(LARGE, ROWS)):
        add_rows(shelf, ids[rows], vectors[rows])
    return Shelf.at(shelf.folder)


def segment(shelf: Shelf, rows: int = LARGE) -> Path:
    (path,) = (shelf.folder / "segments").glob(f"*-{rows}.safetensors")
    return path


def findings(folder: Path) -> list[tuple[str, str]]:
    return [(finding.path.name, finding.problem) for finding in check_shelf(folder).findings]


def test_a_whole_shelf_is_counted_and_nothing_is_changed(shelf: Shelf) -> None:
    before = {path: path.stat().st_mtime_ns for path in shelf.folder.rglob("*")}
    report = check_shelf(shelf.folder)
    assert report.is_whole
    assert report.notes == []
    assert (report.rows, report.segments) == (ROWS, 2)
    assert report.size == sum(p.stat().st_size for p in shelf.folder.rglob("*") if p.is_file())
    assert {path: path.stat().st_mtime_ns for path in shelf.folder.rglob("*")} == before


def test_every_bit_of_the_description_counts(shelf: Shelf) -> None:
    path = shelf.folder / "fingerprint.json"
    whole, passed = path.read_bytes(), []
    for place in range(len(whole)):
        for bit in (1, 32):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            with contextlib.suppress(AgiqaError):
                read_description(shelf.folder)
                assert not check_shelf(shelf.folder).is_whole, (place, bit)  # the width, say
                passed.append(place)
    assert len(passed) < 10


def test_rows_of_another_shelf_and_strangers_files_are_left_alone(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    ids = make_ids(3, "other")
    name, parts = build(Kind("d" * 64, WIDTH, "float16"), ids, make_vectors(3, WIDTH))
    path = shelf.folder / "segments" / name
    path.write_bytes(b"".join(parts))
    (shelf.folder / "segments" / "notes.txt").write_text("mine")
    (shelf.folder / "backup").mkdir()
    assert len(shelf.ids()) == ROWS
    assert "found rows of another layout or fingerprint; none of it is taken" in caplog.text
    assert findings(shelf.folder) == [(name, "has rows of another layout or fingerprint")]
    assert check_shelf(shelf.folder).notes == [
        f"{shelf.folder}/{name}: nothing of agiqa; move it away"
        for name in ("backup", "segments/notes.txt")
    ]
    with pytest.raises(AgiqaError, match=f"{name}: expected rows of this shelf, .* move it away"):
        repair_shelf(shelf.folder)
    assert path.exists()


def test_numbers_that_are_none_are_a_finding_though_their_checksum_fits(shelf: Shelf) -> None:
    vectors = np.full((2, WIDTH), np.nan, dtype="float16")
    vectors[1] = 1
    ids = [hashlib.sha256(text).hexdigest() for text in (b"odd", b"even")]
    shelf.rows.add(ids, vectors)
    (bad,) = check_shelf(shelf.folder).findings
    assert bad.image_ids == (ids[0],)
    assert "fail their checksums or are not finite" in bad.problem
    assert shelf.damaged() == (ids[0],)
    repair_shelf(shelf.folder)
    assert Shelf.at(shelf.folder).ids() == {*make_ids(ROWS), ids[1]}


def test_a_shelf_being_written_is_checked_and_not_repaired(shelf: Shelf) -> None:
    flip_rows(path := segment(shelf), WIDTH, 5)
    more, vectors = make_ids(20, "more"), make_vectors(20, WIDTH)
    with Shelf.open(shelf.folder.parent, FINGERPRINT, WIDTH, rank=1).writer() as writer:
        writer.add(more[:10], vectors[:10])
        writer.flush()
        report = check_shelf(shelf.folder)
        assert [finding.path.name for finding in report.findings] == [path.name]
        assert report.rows == ROWS + 10
        assert f"being written by process {os.getpid()} on" in report.notes[0]
        with pytest.raises(LockedError, match=rf"only writer, found process {os.getpid()} on"):
            repair_shelf(shelf.folder)
        assert path.exists()
        writer.add(more, vectors)
    assert len(Shelf.at(shelf.folder).ids()) == ROWS + 20


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layout": 3}, "expected layout 2, found 3; upgrade agiqa"),
        ({"format": "other"}, "expected format 'agiqa-ledger', found 'other'"),
        ({"width": 0}, "found that it lacks a fingerprint, a width up to"),
        ({"stranger": 1}, "found that it lacks a fingerprint, a width up to"),
        ({"fingerprint": {"extractor": "x"}}, "expected the fingerprint that the folder is named"),
    ],
)
def test_foreign_and_newer_descriptions_are_refused(
    shelf: Shelf, changed: dict[str, object], message: str
) -> None:
    path = shelf.folder / "fingerprint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed, indent=2))
    with pytest.raises(AgiqaError, match=message):
        Shelf.at(shelf.folder)
