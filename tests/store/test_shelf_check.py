"""Checks of shelves: every kind of damage is found, nothing whole is accused, repairs save rows."""

import contextlib
import hashlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.store import LockedError, Shelf, digest
from agiqa.store.chunks import id_bytes, row_checksums
from agiqa.store.ledger.journal import Journal
from agiqa.store.ledger.shelf_check import check_shelf, repair_shelf
from agiqa.store.ledger.shelf_description import read_description, restore_description

FINGERPRINT = {"extractor": "nano", "prompt": "Qualité?", "mean": [0.00392156862745098, 1e-05]}
ROWS, WIDTH = 600, 16

Ids = Callable[..., list[str]]
Make = Callable[..., np.ndarray]


@pytest.fixture
def shelf(tmp_path: Path, make_ids: Ids, make_vectors: Make) -> Shelf:
    """Two sections; the first one with three chunks, two dropped rows."""
    ids, vectors = make_ids(ROWS), make_vectors(ROWS, WIDTH)
    shelf = Shelf.open(tmp_path, FINGERPRINT, WIDTH)
    with shelf.writer() as writer:
        for start in range(0, 550, 50):
            writer.add(ids[start : start + 50], vectors[start : start + 50])
            writer.flush()
        writer.drop(ids[3:5])
    with Shelf.open(tmp_path, FINGERPRINT, WIDTH, section=2).writer() as writer:
        writer.add(ids[550:], vectors[550:])
    return Shelf.at(shelf.folder)


def flip(path: Path, place: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= bit
    path.write_bytes(data)


def findings(folder: Path) -> list[tuple[str, str]]:
    return [(each.path.name, each.what) for each in check_shelf(folder).findings]


def test_a_whole_shelf_is_counted_and_nothing_is_changed(shelf: Shelf) -> None:
    before = {path: path.stat().st_mtime_ns for path in shelf.folder.rglob("*")}
    report = check_shelf(shelf.folder)
    assert report.is_whole
    assert report.notes == []
    assert (report.rows, report.chunks, report.lines) == (598, 4, 15)
    assert report.size == sum(p.stat().st_size for p in shelf.folder.rglob("*") if p.is_file())
    assert {path: path.stat().st_mtime_ns for path in shelf.folder.rglob("*")} == before


def test_every_flipped_bit_is_found(shelf: Shelf) -> None:
    places, tried = random.Random(5), 0
    files = [path for path in shelf.folder.rglob("*") if path.is_file() and path.stat().st_size]
    assert len(files) == 9
    for path in files:
        whole = path.read_bytes()
        for _ in range(12):
            place, bit = places.randrange(len(whole)), 1 << places.randrange(8)
            flip(path, place, bit)
            assert not check_shelf(shelf.folder).is_whole, (path, place, bit)
            path.write_bytes(whole)
            tried += 1
    assert tried == 108
    assert check_shelf(shelf.folder).is_whole


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


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (Path.unlink, "is missing"),
        (lambda path: path.write_bytes(b""), "has 0 of 8196 bytes"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "has 8195 of 8196 bytes"),
        (lambda path: flip(path, 100), "fails its checksum"),
        (
            lambda path: path.write_bytes(path.with_name("c.0.0").read_bytes()),
            "is whole, but rows in it are not those that the journal names, or not finite",
        ),
    ],
)
def test_a_bad_chunk_is_named_with_its_rows(
    shelf: Shelf, make_ids: Ids, damage: Callable[[Path], object], what: str
) -> None:
    damage(shelf.folder / "vectors" / "c.1.0")
    report = check_shelf(shelf.folder)
    assert [(each.path.name, each.what) for each in report.findings] == [("c.1.0", what)]
    assert report.findings[0].image_ids == tuple(make_ids(ROWS)[256:512])


def test_rows_that_a_damaged_journal_line_named_are_a_finding(shelf: Shelf) -> None:
    journal = shelf.folder / "journal.jsonl"
    start = journal.read_bytes().index(b"\n") + 1
    flip(journal, start + 300)
    assert findings(shelf.folder) == [
        (
            "journal.jsonl",
            f"line 2 (byte {start}) fails its checksum; the 50 rows it named count as absent",
        )
    ]
    assert check_shelf(shelf.folder).rows == 548


def test_a_torn_tail_is_a_note_and_a_hidden_nan_a_finding(shelf: Shelf, make_ids: Ids) -> None:
    part = shelf.folder / "part-2"
    with (part / "journal.jsonl").open("ab") as file:
        file.write(b'{"check":"12')
    report = check_shelf(shelf.folder)
    assert report.is_whole
    assert "12 bytes that a stopped writer left" in report.notes[0]
    section = Shelf.at(shelf.folder).sections()[2]
    vector = np.full((1, WIDTH), np.nan, dtype="<f2")  # with a checksum that fits
    odd = [hashlib.sha256(b"odd").hexdigest()]
    Journal.acknowledge(section.journal, 50, odd, row_checksums(id_bytes(odd), vector))
    bad = check_shelf(shelf.folder).findings
    assert [(each.path.name, each.image_ids) for each in bad] == [("c.0.0", tuple(odd))]


def test_repair_saves_all_rows_but_the_changed_one(
    shelf: Shelf, make_ids: Ids, make_vectors: Make
) -> None:
    ids, vectors = make_ids(ROWS), make_vectors(ROWS, WIDTH)
    chunk = shelf.folder / "vectors" / "c.1.0"
    flip(chunk, 10 * WIDTH * 2 + 5)  # in row 266
    flip(shelf.folder / "vectors" / "zarr.json", 40)
    flip(shelf.folder / "part-2" / "vectors" / "c.0.0", 8195)  # in the chunk's own checksum
    done = repair_shelf(shelf.folder)
    assert [line.removeprefix(f"{shelf.folder}") for line in done] == [
        "/vectors/zarr.json: written anew",
        "/vectors/c.1.0: written anew, rows saved: 255",
        ": rows dropped: 1",
        "/part-2/vectors/c.0.0: written anew, rows saved: 50",
    ]
    assert check_shelf(shelf.folder).is_whole
    kept = [image_id for image_id in ids if image_id not in (ids[3], ids[4], ids[266])]
    again = Shelf.open(shelf.folder.parent, FINGERPRINT, WIDTH)
    assert again.ids() == frozenset(kept)
    with again.writer() as writer:
        writer.add(ids, vectors)
    np.testing.assert_array_equal(again.read(ids), vectors)
    assert repair_shelf(shelf.folder) == []


def test_repair_takes_damaged_lines_out(shelf: Shelf, make_ids: Ids, make_vectors: Make) -> None:
    flip(shelf.folder / "journal.jsonl", 300)
    assert repair_shelf(shelf.folder) == [
        f"{shelf.folder / 'journal.jsonl'}: damaged lines taken out: 1"
    ]
    assert check_shelf(shelf.folder).is_whole
    ids = make_ids(ROWS)
    left = [image_id for image_id in ids[50:] if image_id not in ids[3:5]]
    np.testing.assert_array_equal(shelf.read(left), make_vectors(ROWS, WIDTH)[50:])


def test_a_shelf_being_written_is_checked_and_not_repaired(
    shelf: Shelf, make_ids: Ids, make_vectors: Make
) -> None:
    flip(shelf.folder / "vectors" / "c.0.0", 100)
    more = make_ids(10, "more")
    writing = Shelf.open(shelf.folder.parent, FINGERPRINT, WIDTH)
    with writing.writer() as writer:
        writer.add(more, make_vectors(10, WIDTH))
        writer.flush()
        report = check_shelf(shelf.folder)
        assert [each.path.name for each in report.findings] == ["c.0.0"]
        assert report.rows == 608
        assert f"being written by process {os.getpid()} on" in report.notes[0]
        before = (shelf.folder / "journal.jsonl").read_bytes()
        with pytest.raises(LockedError, match=rf"only writer, found process {os.getpid()} on"):
            repair_shelf(shelf.folder)
        assert (shelf.folder / "journal.jsonl").read_bytes() == before
        writer.add(make_ids(20, "more"), make_vectors(20, WIDTH))
    assert len(Shelf.at(shelf.folder).ids()) == 618


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
        ({"layout": 2}, "expected layout 1, found 2; upgrade agiqa"),
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
    assert list(shelf.sections()) == [0, 2]


def test_a_wrong_width_in_the_description_costs_no_row(shelf: Shelf) -> None:
    """Only the fingerprint is vouched for by the folder's name; the chunks' sizes say the width."""
    path = shelf.folder / "fingerprint.json"
    whole = path.read_text()
    path.write_text(whole.replace(f'"width": {WIDTH}', f'"width": {WIDTH + 1}'))
    assert path.read_text() != whole
    (finding,) = check_shelf(shelf.folder).findings
    assert f"says width {WIDTH + 1}, float16, but the vectors are of width {WIDTH}" in finding.what
    with pytest.raises(AgiqaError, match="verify --repair"):
        repair_shelf(shelf.folder)
    assert restore_description(shelf.folder, [FINGERPRINT])
    assert path.read_text() == whole
    assert check_shelf(shelf.folder).is_whole
