"""Shelves: what is read is what was written; every kind of damage is found, repairs save rows."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agiqa.core.errors import AgiqaError
from agiqa.store import DamagedRowsError, FingerprintMismatchError, LockedError, Shelf, default_root
from agiqa.store.ledger.segments import Kind, build, rows_of
from agiqa.store.ledger.shelf import read_description
from agiqa.store.rows import BLOCK_BYTES, READERS, several_at_once
from agiqa.store.upkeep.verification import check_shelf, repair_shelf
from kit.stored_rows import add_rows, flip_rows, make_ids, make_vectors

FINGERPRINT = {"extractor": "nano", "prompt": "Describe the image."}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf.open(tmp_path, FINGERPRINT, 8)


def segments(shelf: Shelf) -> list[Path]:
    return sorted((shelf.folder / "segments").glob("*.safetensors"))


def test_rows_come_back_in_the_order_asked_for(shelf: Shelf, tmp_path: Path) -> None:
    ids, vectors = make_ids(5000), make_vectors(5000, 8)
    with shelf.writer() as writer:
        for start in range(0, 5000, 48):  # a segment is full at 4096
            writer.add(ids[start : start + 48], vectors[start : start + 48])
    again = Shelf.open(tmp_path, FINGERPRINT, 8)
    assert again.ids() == frozenset(ids)
    order = np.random.default_rng(1).permutation(5000)[:700]
    np.testing.assert_array_equal(again.read([ids[row] for row in order]), vectors[order])
    np.testing.assert_array_equal(again.read([ids[7], ids[7]]), vectors[[7, 7]])
    assert again.read([]).shape == (0, 8)
    assert again.damaged() == ()
    assert sorted(rows_of(path.name) for path in segments(shelf)) == [5000 - 4096, 4096]


def test_rows_already_there_are_passed_over(shelf: Shelf) -> None:
    ids, vectors = make_ids(4), make_vectors(4, 8)
    with shelf.writer() as writer:
        writer.add(ids[:2], vectors[:2])
        writer.add([ids[1], ids[2], ids[2]], vectors[[0, 2, 3]])  # one pending, one twice
        writer.flush()
        writer.add(ids, vectors[::-1])  # three acknowledged
    np.testing.assert_array_equal(shelf.read(ids), vectors[[0, 1, 2, 0]])


def test_nothing_counts_before_it_is_flushed_and_time_flushes(shelf: Shelf, tmp_path: Path) -> None:
    reader = Shelf.open(tmp_path, FINGERPRINT, 8)
    ids, vectors = make_ids(300), make_vectors(300, 8)
    with shelf.writer(flush_seconds=3600) as writer:
        writer.add(ids[:255], vectors[:255])
        assert reader.ids() == frozenset()
        writer.flush()
        assert reader.ids() == frozenset(ids[:255])  # a reader needs no lock
        np.testing.assert_array_equal(reader.read(ids[:255]), vectors[:255])
        writer.add(ids[255:260], vectors[255:260])
        writer.flush()
        assert len(reader.ids()) == 260
    with shelf.writer(flush_seconds=0) as writer:
        writer.add(ids[260:261], vectors[260:261])
        assert ids[260] not in reader.rows  # as of the last refresh
        assert ids[260] in reader.ids()
        assert ids[260] in reader.rows


def test_what_was_added_is_kept_when_the_body_fails(shelf: Shelf) -> None:
    with pytest.raises(KeyboardInterrupt), shelf.writer() as writer:  # noqa: PT012
        writer.add(make_ids(3), make_vectors(3, 8))
        raise KeyboardInterrupt
    assert len(shelf.ids()) == 3
    with pytest.raises(RuntimeError, match="writer is closed"):
        writer.add(make_ids(3), make_vectors(3, 8))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_is_refused_with_its_image(shelf: Shelf, bad: float) -> None:
    ids, vectors = make_ids(3), make_vectors(3, 8)
    vectors[1, 5] = bad
    with shelf.writer() as writer:
        with pytest.raises(AgiqaError, match=rf"NaN or infinity for image {ids[1]} \(1 of 3"):
            writer.add(ids, vectors)
        writer.add(ids[:1], vectors[:1])
    assert shelf.ids() == {ids[0]}


def test_other_widths_dtypes_and_ids_are_refused(shelf: Shelf) -> None:
    ids = make_ids(2)
    with shelf.writer() as writer:
        with pytest.raises(AgiqaError, match=r"of shape \(2, 8\), found \(2, 9\)"):
            writer.add(ids, make_vectors(2, 9))
        with pytest.raises(AgiqaError, match=r"of shape \(2, 8\), found \(3, 8\)"):
            writer.add(ids, make_vectors(3, 8))
        with pytest.raises(AgiqaError, match="dtype float16, found float32"):
            writer.add(ids, make_vectors(2, 8, dtype="float32"))
        with pytest.raises(AgiqaError, match=r"sha256 in hex .*, found 'cat\.png'"):
            writer.add([ids[0], "cat.png"], make_vectors(2, 8))
    assert shelf.ids() == frozenset()


def test_an_absent_row_is_counted_and_named(shelf: Shelf) -> None:
    ids = make_ids(3)
    add_rows(shelf, ids[:1], make_vectors(1, 8))
    with pytest.raises(AgiqaError, match=rf"for 3 images, found 1 \(first missing: {ids[1]}\)"):
        shelf.read(ids)


def test_each_fingerprint_has_its_own_shelf(tmp_path: Path) -> None:
    one = Shelf.open(tmp_path, FINGERPRINT, 8)
    other = Shelf.open(tmp_path, {**FINGERPRINT, "prompt": "Describe it."}, 8)
    odd = Shelf.open(tmp_path, {"extractor": "../org/model\n"}, 8)
    assert one.folder.name.startswith("nano-")
    assert odd.folder.name.startswith("org-model-")
    assert len({one.folder, other.folder, odd.folder}) == 3
    assert {one.folder.parent, other.folder.parent, odd.folder.parent} == {tmp_path}
    assert len(list(tmp_path.iterdir())) == 3  # nothing left of their creation


def test_a_shelf_of_another_fingerprint_or_width_names_field_and_values(
    shelf: Shelf, tmp_path: Path
) -> None:
    with pytest.raises(FingerprintMismatchError, match=r"expected width = 9, found 8; choose"):
        Shelf.open(tmp_path, FINGERPRINT, 9)
    path = shelf.folder / "fingerprint.json"
    path.write_text(path.read_text().replace("Describe the", "Rate the"))
    message = "fingerprint.prompt = 'Describe the image.', found 'Rate the image.'"
    with pytest.raises(FingerprintMismatchError, match=re.escape(message)):
        Shelf.open(tmp_path, FINGERPRINT, 8)


@pytest.mark.parametrize("damage", ["lost", "cut short"])
def test_a_shelf_whose_description_is_lost_is_known_by_its_name(
    shelf: Shelf, tmp_path: Path, damage: str, caplog: Any
) -> None:
    add_rows(shelf, make_ids(3), make_vectors(3, 8))
    path = shelf.folder / "fingerprint.json"
    whole = path.read_bytes()
    path.unlink() if damage == "lost" else path.write_bytes(whole[:50])
    with pytest.raises(AgiqaError, match=r"fingerprint.json.*; `agiqa cache verify --repair`"):
        Shelf.at(shelf.folder)
    with pytest.raises(FingerprintMismatchError, match="expected width = 9, found 8"):
        Shelf.open(tmp_path, FINGERPRINT, 9)
    path.unlink()
    assert len(Shelf.open(tmp_path, FINGERPRINT, 8).ids()) == 3
    assert path.read_bytes() == whole
    assert "was lost or damaged and has been written anew" in caplog.text


def test_a_store_folder_that_is_a_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AgiqaError, match=r"expected to open or create .*; check") as caught:
        Shelf.open(tmp_path / "file", FINGERPRINT, 8)
    assert "\n" not in str(caught.value)


def test_several_threads_may_create_the_same_shelf(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def create() -> None:
        try:
            Shelf.open(tmp_path, FINGERPRINT, 8)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(list(tmp_path.iterdir())) == 1


def test_the_root_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGIQA_STORE", "~/features")
    assert default_root() == Path.home() / "features"
    monkeypatch.delenv("AGIQA_STORE")
    assert default_root().name == "ledger"
    assert default_root().is_absolute()


FINITE_BITS = st.integers(0x0000, 0x7BFF) | st.integers(0x8000, 0xFBFF)  # every finite float16
FINITE = hnp.arrays(np.uint16, (6, 3), elements=FINITE_BITS).map(lambda bits: bits.view(np.float16))
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "flush", "reopen"]),
        st.lists(st.integers(0, 400), min_size=6, max_size=6),
        FINITE,
    ),
    max_size=12,
)


@settings(max_examples=30, deadline=None)
@given(STEPS)
def test_what_is_read_is_what_was_first_written(steps: list) -> None:
    names = make_ids(401)
    written: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        shelf = Shelf.open(Path(folder), FINGERPRINT, 3)
        opened = shelf.writer()
        writer = opened.__enter__()
        for step, rows, vectors in steps:
            if step == "add":
                writer.add([names[row] for row in rows], vectors)
                for row, vector in zip(rows, vectors, strict=True):
                    written.setdefault(names[row], vector)
            elif step == "flush":
                writer.flush()
            else:
                opened.__exit__(None, None, None)
                shelf = Shelf.open(Path(folder), FINGERPRINT, 3)
                opened = shelf.writer()
                writer = opened.__enter__()
        opened.__exit__(None, None, None)
        again = Shelf.open(Path(folder), FINGERPRINT, 3)
        assert again.ids() == written.keys()
        found = again.read(list(written))
        assert [row.tobytes() for row in found] == [row.tobytes() for row in written.values()]


def add(root: Path, rank: int, ids: list[str], vectors: np.ndarray) -> Shelf:
    return add_rows(Shelf.open(root, FINGERPRINT, 8, rank=rank), ids, vectors)


def test_ranks_write_at_once_and_each_by_one(tmp_path: Path) -> None:
    ids, vectors = make_ids(4), make_vectors(4, 8)
    one, two = (Shelf.open(tmp_path, FINGERPRINT, 8, rank=rank) for rank in (1, 2))
    with one.writer() as first, two.writer() as second:
        first.add(ids[:2], vectors[:2])
        second.add(ids[2:], vectors[2:])
        again = rf"expected to be the only writer of rank 1, found process {os.getpid()} on"
        for _ in range(2):  # the refusal takes nothing from the owner
            with pytest.raises(LockedError, match=again), one.writer():
                pass
    with Shelf.open(tmp_path, FINGERPRINT, 8, rank=1).writer():
        pass
    reader = Shelf.open(tmp_path, FINGERPRINT, 8)
    np.testing.assert_array_equal(reader.read(ids), vectors)


def test_a_whole_copy_in_another_segment_stands_in(tmp_path: Path) -> None:
    ids, vectors = make_ids(5), make_vectors(5, 8)
    shelf = add(tmp_path, 0, ids, vectors)
    (path,) = segments(shelf)
    aside = path.rename(tmp_path / path.name)
    add(tmp_path, 1, ids[1:3], vectors[1:3])
    flip_rows(aside, 8, *range(5))
    aside.rename(path)
    np.testing.assert_array_equal(shelf.read(ids[1:3]), vectors[1:3])
    with pytest.raises(DamagedRowsError, match="3 damaged") as caught:
        shelf.read(ids)
    assert caught.value.image_ids == (ids[0], *ids[3:])
    assert set(shelf.damaged()) == {ids[0], *ids[3:]}


def test_segments_may_be_copied_by_anybody(tmp_path: Path) -> None:
    """As `cp -n`, `rsync` or `aws s3 sync` do; one that is copied slowly counts as far as it is."""
    ids, vectors = make_ids(60), make_vectors(60, 8)
    ours, theirs = add(tmp_path / "a", 0, ids[:40], vectors[:40]), tmp_path / "b"
    other = add(theirs, 0, ids[20:], vectors[20:])
    (path,) = segments(other)
    whole, target = path.read_bytes(), ours.folder / "segments" / path.name
    for size in (10, len(whole) - 32 * 15, len(whole)):
        target.write_bytes(whole[:size])
        there = ours.ids()
        assert there >= frozenset(ids[:40])
        np.testing.assert_array_equal(
            ours.read([name for name in ids if name in there]),
            vectors[[row for row, name in enumerate(ids) if name in there]],
        )
    assert ours.ids() == frozenset(ids)


def test_threads_that_read_do_not_run_far_ahead() -> None:
    """Or a shelf that is read would be in memory twice."""
    begun: list[int] = []
    with several_at_once(BLOCK_BYTES + 1) as at_once:
        results = iter(at_once(lambda number: begun.append(number) or number, range(100)))
        assert next(results) == 0
        time.sleep(0.1)
        assert len(begun) <= READERS + 1
        assert list(results) == [*range(1, 100)]


def test_a_shelf_of_layout_1_is_named(tmp_path: Path) -> None:
    old = Path(__file__).parent / "data" / "layout-1"
    shutil.copytree(old, tmp_path / "ledger")
    message = (
        rf"layout 1\); take them over: mv {tmp_path}/ledger {tmp_path}/ledger-1 && agiqa cache"
    )
    for fingerprint in (FINGERPRINT, {"extractor": "another"}):
        with pytest.raises(AgiqaError, match=message):
            Shelf.open(tmp_path / "ledger", fingerprint, 4)


QUALITY = {"extractor": "nano", "prompt": "Qualité?", "mean": [0.00392156862745098, 1e-05]}
ROWS, WIDTH = 600, 16
LARGE = 400  # rows of the first segment


@pytest.fixture
def filled(tmp_path: Path) -> Shelf:
    """Two segments, of 400 and of 200 rows."""
    ids, vectors = make_ids(ROWS), make_vectors(ROWS, WIDTH)
    shelf = Shelf.open(tmp_path, QUALITY, WIDTH)
    for rows in (slice(0, LARGE), slice(LARGE, ROWS)):
        add_rows(shelf, ids[rows], vectors[rows])
    return Shelf.at(shelf.folder)


def test_a_whole_shelf_is_counted_and_nothing_is_changed(filled: Shelf) -> None:
    before = {path: path.stat().st_mtime_ns for path in filled.folder.rglob("*")}
    report = check_shelf(filled.folder)
    assert report.is_whole
    assert report.notes == []
    assert (report.rows, report.segments) == (ROWS, 2)
    assert report.size == sum(p.stat().st_size for p in filled.folder.rglob("*") if p.is_file())
    assert {path: path.stat().st_mtime_ns for path in filled.folder.rglob("*")} == before


def test_every_bit_of_the_description_counts(filled: Shelf) -> None:
    path = filled.folder / "fingerprint.json"
    whole, passed = path.read_bytes(), []
    for place in range(len(whole)):
        for bit in (1, 32):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            with contextlib.suppress(AgiqaError):
                read_description(filled.folder)
                assert not check_shelf(filled.folder).is_whole, (place, bit)  # the width, say
                passed.append(place)
    assert len(passed) < 10


def test_rows_of_another_shelf_and_strangers_files_are_left_alone(
    filled: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    ids = make_ids(3, "other")
    name, parts = build(Kind("d" * 64, WIDTH, "float16"), ids, make_vectors(3, WIDTH))
    path = filled.folder / "segments" / name
    path.write_bytes(b"".join(parts))
    (filled.folder / "segments" / "notes.txt").write_text("mine")
    (filled.folder / "backup").mkdir()
    assert len(filled.ids()) == ROWS
    assert "found rows of another layout or fingerprint; none of it is taken" in caplog.text
    report = check_shelf(filled.folder)
    found = [(finding.path.name, finding.problem) for finding in report.findings]
    assert found == [(name, "has rows of another layout or fingerprint")]
    assert report.notes == [
        f"{filled.folder}/{name}: nothing of agiqa; move it away"
        for name in ("backup", "segments/notes.txt")
    ]
    with pytest.raises(AgiqaError, match=f"{name}: expected rows of this shelf, .* move it away"):
        repair_shelf(filled.folder)
    assert path.exists()


def test_numbers_that_are_none_are_a_finding_though_their_checksum_fits(filled: Shelf) -> None:
    vectors = np.full((2, WIDTH), np.nan, dtype="float16")
    vectors[1] = 1
    ids = [hashlib.sha256(text).hexdigest() for text in (b"odd", b"even")]
    filled.rows.add(ids, vectors)
    (bad,) = check_shelf(filled.folder).findings
    assert bad.image_ids == (ids[0],)
    assert "fail their checksums or are not finite" in bad.problem
    assert filled.damaged() == (ids[0],)
    repair_shelf(filled.folder)
    assert Shelf.at(filled.folder).ids() == {*make_ids(ROWS), ids[1]}


def test_a_shelf_being_written_is_checked_and_not_repaired(filled: Shelf) -> None:
    (path,) = (filled.folder / "segments").glob(f"*-{LARGE}.safetensors")
    flip_rows(path, WIDTH, 5)
    more, vectors = make_ids(20, "more"), make_vectors(20, WIDTH)
    with Shelf.open(filled.folder.parent, QUALITY, WIDTH, rank=1).writer() as writer:
        writer.add(more[:10], vectors[:10])
        writer.flush()
        report = check_shelf(filled.folder)
        assert [finding.path.name for finding in report.findings] == [path.name]
        assert report.rows == ROWS + 10
        assert f"being written by process {os.getpid()} on" in report.notes[0]
        with pytest.raises(LockedError, match=rf"only writer, found process {os.getpid()} on"):
            repair_shelf(filled.folder)
        assert path.exists()
        writer.add(more, vectors)
    assert len(Shelf.at(filled.folder).ids()) == ROWS + 20


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
    filled: Shelf, changed: dict[str, object], message: str
) -> None:
    path = filled.folder / "fingerprint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed, indent=2))
    with pytest.raises(AgiqaError, match=message):
        Shelf.at(filled.folder)
