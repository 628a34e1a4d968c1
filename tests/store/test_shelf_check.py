"""Checks of shelves: every kind of damage is found, nothing whole is accused, repairs save rows."""

import contextlib
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.store import LockedError, Shelf, digest
from agiqa.store.ledger.description import read_description, restore_description
from agiqa.store.ledger.segments import Kind, build
from agiqa.store.ledger.shelf_check import check_shelf, repair_shelf
from kit.stored_rows import make_ids, make_vectors

FINGERPRINT = {"extractor": "nano", "prompt": "Qualité?", "mean": [0.00392156862745098, 1e-05]}
ROWS, WIDTH = 600, 16
LARGE = 400  # rows of the first segment


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Two segments, of 400 and of 200 rows."""
    ids, vectors = make_ids(ROWS), make_vectors(ROWS, WIDTH)
    shelf = Shelf.open(tmp_path, FINGERPRINT, WIDTH)
    for rows in (slice(0, LARGE), slice(LARGE, ROWS)):
        with shelf.writer() as writer:
            writer.add(ids[rows], vectors[rows])
    return Shelf.at(shelf.folder)


def segment(shelf: Shelf, rows: int = LARGE) -> Path:
    (path,) = (shelf.folder / "segments").glob(f"*-{rows}.safetensors")
    return path


def flip(path: Path, place: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= bit
    path.write_bytes(data)


def flip_row(path: Path, row: int, rows: int = LARGE) -> None:
    flip(path, row * WIDTH * 2 - rows * (WIDTH * 2 + 32))


def findings(folder: Path) -> list[tuple[str, str]]:
    return [(each.path.name, each.problem) for each in check_shelf(folder).findings]


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
        for bit in (0, 5):
            flip(path, place, 1 << bit)
            with contextlib.suppress(AgiqaError):
                read_description(shelf.folder)
                assert not check_shelf(shelf.folder).is_whole, (place, bit)  # the width, say
                passed.append(place)
            path.write_bytes(whole)
    assert len(passed) < 10


def test_rows_of_another_shelf_and_strangers_files_are_left_alone(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    ids = make_ids(3, "other")
    name, parts = build(Kind("d" * 64, WIDTH, "float16"), ids, make_vectors(3, WIDTH))
    path = shelf.folder / "segments" / name
    path.write_bytes(b"".join(parts))
    (shelf.folder / "segments" / "notes.txt").write_text("mine")
    assert len(shelf.ids()) == ROWS
    assert "found rows of another layout or fingerprint; none of it is taken" in caplog.text
    assert findings(shelf.folder) == [(name, "has rows of another layout or fingerprint")]
    assert check_shelf(shelf.folder).notes == [
        f"{shelf.folder}/segments/notes.txt: nothing of agiqa; move it away"
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
    flip_row(path := segment(shelf), 5)
    more, vectors = make_ids(20, "more"), make_vectors(20, WIDTH)
    with Shelf.open(shelf.folder.parent, FINGERPRINT, WIDTH, rank=1).writer() as writer:
        writer.add(more[:10], vectors[:10])
        writer.flush()
        report = check_shelf(shelf.folder)
        assert [each.path.name for each in report.findings] == [path.name]
        assert report.rows == ROWS + 10
        assert f"being written by process {os.getpid()} on" in report.notes[0]
        with pytest.raises(LockedError, match=rf"only writer, found process {os.getpid()} on"):
            repair_shelf(shelf.folder)
        assert path.exists()
        writer.add(more, vectors)
    assert len(Shelf.at(shelf.folder).ids()) == ROWS + 20


def test_a_lost_description_is_made_again_from_a_known_fingerprint(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    path = shelf.folder / "fingerprint.json"
    whole = path.read_bytes()
    for content in (b"", whole[:-30], whole.replace(b'"nano"', b'"nan0"')):
        path.write_bytes(content)
        assert findings(shelf.folder)[0][0] == shelf.folder.name
        assert not restore_description(shelf.folder, [{"extractor": "nano"}])
        assert path.read_bytes() == content
        assert restore_description(shelf.folder, [{"extractor": "nano"}, FINGERPRINT])
        assert path.read_bytes() == whole
    assert check_shelf(shelf.folder).is_whole


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layout": 3}, "expected layout 2, found 3; upgrade agiqa"),
        ({"format": "other"}, "expected format 'agiqa-ledger', found 'other'"),
        ({"width": 0}, "found that it lacks a fingerprint, a width up to"),
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


def test_a_strangers_folder_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("nothing")
    report = check_shelf(tmp_path / "notes")
    assert report.is_whole
    assert report.notes == ["not a shelf: nothing of agiqa is in it"]


def test_the_folder_opens_as_the_fingerprint_does(shelf: Shelf, tmp_path: Path) -> None:
    assert digest(shelf.fingerprint) == digest(FINGERPRINT)
    assert (shelf.width, shelf.dtype) == (WIDTH, "float16")
    assert shelf.ids() == Shelf.open(tmp_path, FINGERPRINT, WIDTH).ids()


def test_a_wrong_width_in_the_description_costs_no_row(shelf: Shelf) -> None:
    """Only the fingerprint is vouched for by the folder's name; segments say the width."""
    path = shelf.folder / "fingerprint.json"
    whole = path.read_text()
    path.write_text(whole.replace(f'"width": {WIDTH}', f'"width": {WIDTH + 1}'))
    assert path.read_text() != whole
    (finding,) = check_shelf(shelf.folder).findings
    assert (
        f"says width {WIDTH + 1}, float16, but the vectors are of width {WIDTH}" in finding.problem
    )
    with pytest.raises(AgiqaError, match="verify --repair"):
        repair_shelf(shelf.folder)
    assert restore_description(shelf.folder, [FINGERPRINT])
    assert path.read_text() == whole
    assert check_shelf(shelf.folder).is_whole
