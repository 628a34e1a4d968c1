"""What can be freed in the ledger, and that nothing valid ever goes with it."""

import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.store import LockedError, Shelf
from agiqa.store.upkeep.clearing import leftovers, orphans_of_shelf, remove_shelf
from kit.stored_rows import add_rows, flip, make_ids, make_vectors

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
