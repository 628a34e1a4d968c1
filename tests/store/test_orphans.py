"""What can be freed in the ledger, and that nothing valid ever goes with it."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.store import LockedError, Shelf
from agiqa.store.ledger.orphans import (
    leftovers,
    orphans_of_shelf,
    remove_leftovers,
    remove_orphans,
    remove_shelf,
    require_no_stranger,
)

FINGERPRINT = {"extractor": "nano"}
WIDTH = 8

Ids = Callable[..., list[str]]
Make = Callable[..., np.ndarray]


@pytest.fixture
def shelf(tmp_path: Path, make_ids: Ids, make_vectors: Make) -> Shelf:
    """Four chunks in the first section, of which the second holds dropped rows alone."""
    ids, vectors = make_ids(900), make_vectors(900, WIDTH)
    shelf = Shelf.open(tmp_path, FINGERPRINT, WIDTH)
    with shelf.writer() as writer:
        writer.add(ids[:800], vectors[:800])
        writer.drop(ids[256:512])
    with Shelf.open(tmp_path, FINGERPRINT, WIDTH, section=1).writer() as writer:
        writer.add(ids[800:], vectors[800:])
    return shelf


def names(found: object) -> list[str]:
    return [each.path.name for each in found]  # type: ignore[attr-defined]


def test_chunks_without_a_row_and_partial_files_go_and_rows_stay(
    shelf: Shelf, make_ids: Ids, make_vectors: Make
) -> None:
    ids, vectors = make_ids(900), make_vectors(900, WIDTH)
    array = shelf.folder / "vectors"
    (array / "c.3.0.partial").write_bytes(b"half")
    (shelf.folder / "part-1" / "journal.jsonl.partial").write_bytes(b"ha")
    (array / "c.9.0").write_bytes((array / "c.1.0").read_bytes())  # written, never acknowledged
    found, busy = orphans_of_shelf(shelf.folder)
    assert busy == []
    assert names(found) == ["c.3.0.partial", "c.1.0", "c.9.0", "journal.jsonl.partial"]
    size = sum(each.path.stat().st_size for each in found)
    assert sum(each.size for each in found) == size
    assert remove_orphans(shelf.folder, found) == found
    assert orphans_of_shelf(shelf.folder) == ([], [])
    kept = ids[:256] + ids[512:]
    assert shelf.ids() == frozenset(kept)
    np.testing.assert_array_equal(shelf.read(kept), np.delete(vectors, range(256, 512), axis=0))
    with shelf.writer() as writer:
        writer.add(ids, vectors)
    np.testing.assert_array_equal(Shelf.at(shelf.folder).read(ids), vectors)


def test_what_got_a_row_meanwhile_stays(shelf: Shelf, make_ids: Ids, make_vectors: Make) -> None:
    with shelf.writer() as writer:
        writer.drop(make_ids(900)[768:800])  # the last chunk, still open, holds nothing now
    found, _ = orphans_of_shelf(shelf.folder)
    assert names(found) == ["c.1.0", "c.3.0"]
    with shelf.writer() as writer:
        writer.add(make_ids(5, "new"), make_vectors(5, WIDTH))  # into c.3.0
    assert names(remove_orphans(shelf.folder, found)) == ["c.1.0"]
    np.testing.assert_array_equal(shelf.read(make_ids(5, "new")), make_vectors(5, WIDTH))


def test_the_open_chunk_may_go_and_the_writer_goes_on(
    shelf: Shelf, make_ids: Ids, make_vectors: Make
) -> None:
    with shelf.writer() as writer:
        writer.drop(make_ids(900)[768:800])
    remove_orphans(shelf.folder, orphans_of_shelf(shelf.folder)[0])
    with shelf.writer() as writer:
        writer.add(make_ids(5, "new"), make_vectors(5, WIDTH))
    np.testing.assert_array_equal(shelf.read(make_ids(5, "new")), make_vectors(5, WIDTH))


def test_a_section_being_written_is_passed_over(shelf: Shelf) -> None:
    found, _ = orphans_of_shelf(shelf.folder)
    with shelf.writer():
        there, busy = orphans_of_shelf(shelf.folder)
        assert there == []
        assert busy == [f"{shelf.folder}: being written by {busy[0].partition(' by ')[2]}"]
        assert f"process {os.getpid()} on" in busy[0]
        with pytest.raises(LockedError, match=f"process {os.getpid()} on"):
            remove_orphans(shelf.folder, found)
        with pytest.raises(LockedError, match=f"process {os.getpid()} on"):
            remove_shelf(shelf.folder)
    assert (shelf.folder / "vectors" / "c.1.0").exists()


def test_a_shelf_one_of_whose_sections_is_written_stays_whole(shelf: Shelf, tmp_path: Path) -> None:
    before = {path: path.stat().st_size for path in shelf.folder.rglob("c.*")}
    with (
        Shelf.open(tmp_path, FINGERPRINT, WIDTH, section=1).writer(),
        pytest.raises(LockedError, match="part-1: expected to be the only writer"),
    ):
        remove_shelf(shelf.folder)
    assert {path: path.stat().st_size for path in shelf.folder.rglob("c.*")} == before
    remove_shelf(shelf.folder)
    assert list(tmp_path.iterdir()) == []


def test_rows_behind_a_damaged_journal_line_are_not_freed(shelf: Shelf) -> None:
    journal = shelf.folder / "journal.jsonl"
    data = bytearray(journal.read_bytes())
    data[300] ^= 1
    journal.write_bytes(data)
    found, busy = orphans_of_shelf(shelf.folder)
    assert found == []
    assert busy == [f"{shelf.folder}: damaged journal; run `agiqa cache verify` first"]


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
    remove_leftovers(found)
    assert {path.name for path in tmp_path.iterdir()} == {".new.partial", "nano.zarr.partial"}


def test_strangers_files_in_a_shelf_are_seen(shelf: Shelf) -> None:
    require_no_stranger(shelf.folder)
    (shelf.folder / "part-1" / "notes.txt").write_text("mine")
    with pytest.raises(AgiqaError, match=r"found notes\.txt; move it away"):
        require_no_stranger(shelf.folder)
    (shelf.folder / "part-1" / "notes.txt").unlink()
    (shelf.folder / "backup").mkdir()
    with pytest.raises(AgiqaError, match="found backup; move it away"):
        require_no_stranger(shelf.folder)


def test_a_reader_meets_no_gap_while_chunks_are_freed(shelf: Shelf, make_ids: Ids) -> None:
    kept, stop, seen = make_ids(900)[:256], threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            seen.append(Shelf.at(shelf.folder).read(kept).shape)

    reader = threading.Thread(target=read)
    reader.start()
    while not seen:
        time.sleep(0.01)
    remove_orphans(shelf.folder, orphans_of_shelf(shelf.folder)[0])
    count = len(seen)
    while len(seen) < count + 3:
        assert reader.is_alive()
        time.sleep(0.01)
    stop.set()
    reader.join()
    assert set(seen) == {(256, WIDTH)}
