"""Segments that are missing, cut short, empty, doubled or old: named, never data."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.store import RemoteError, Shelf, pull, pushing
from agiqa.store.checks import check_shelf, repair_shelf
from agiqa.store.ledger.segments import RemoteSegments
from agiqa.store.shared.remote import Remote
from agiqa.store.shared.sharing import SharedShelf
from kit.stored_rows import add_rows, make_ids, make_vectors, right_rows

FINGERPRINT = {"extractor": "nano", "prompt": "Describe the image."}
WIDTH, ROWS = 64, 868
IDS, VECTORS = make_ids(ROWS), make_vectors(ROWS, WIDTH)


@pytest.fixture
def filled(tmp_path: Path) -> Shelf:
    """Four segments, the last one with 100 rows."""
    shelf = Shelf.open(tmp_path, FINGERPRINT, WIDTH)
    with shelf.writer() as writer:
        for start in range(0, ROWS, 256):
            writer.add(IDS[start : start + 256], VECTORS[start : start + 256])
            writer.flush()
    return Shelf.open(tmp_path, FINGERPRINT, WIDTH)


def right(shelf: Shelf) -> set[str]:
    return right_rows(shelf, IDS, VECTORS)


SUM, OTHER = "fails its checksum", "has rows of another layout or fingerprint"
DAMAGE: dict[str, tuple[Callable[[Path], object], int, str]] = {  # rows of 100 that it costs, what
    "missing": (Path.unlink, 100, ""),
    "zero bytes": (lambda path: path.write_bytes(b""), 100, "has 0 bytes, too few for 100 rows"),
    "cut short": (
        lambda path: os.truncate(path, path.stat().st_size - 40),
        2,
        "is cut short: 2 of 100 rows are lost",
    ),
    "cut in the vectors": (
        lambda path: os.truncate(path, 5000),
        100,
        "has 5,000 bytes, too few for 100 rows",
    ),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"more"), 0, SUM),
    "zeros": (lambda path: path.write_bytes(bytes(path.stat().st_size)), 100, OTHER),
    "a bit of a row": (lambda path: path.write_bytes(flip(path.read_bytes(), 5000)), 1, SUM),
    "a bit of an id": (lambda path: path.write_bytes(flip(path.read_bytes(), -1)), 1, SUM),
    "a bit of the header": (lambda path: path.write_bytes(flip(path.read_bytes(), 100)), 0, SUM),
    "another segment": (
        lambda path: shutil.copy(next(path.parent.glob("*-256.safetensors")), path),
        100,
        OTHER,
    ),
}


def flip(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_costs_its_own_rows_and_can_be_repaired(filled: Shelf, damage: str) -> None:
    spoil, cost, what = DAMAGE[damage]
    (path,) = (filled.folder / "segments").glob("*-100.safetensors")
    spoil(path)
    assert len(right(filled)) == ROWS - cost
    found = [(finding.path, finding.problem) for finding in check_shelf(filled.folder).findings]
    assert found == ([(path, what)] if what else [])
    try:
        done = repair_shelf(filled.folder)
    except AgiqaError as error:  # it might be somebody's
        assert damage in ("zeros", "another segment")
        assert "move it away" in str(error)  # noqa: PT017
        path.unlink()
    else:
        dropped = f", dropped: {cost}" if cost else ""
        saved = f"written anew, rows saved: {100 - cost}{dropped}"
        line = f"{path}: {saved if cost < 100 else 'removed, no row is left in it'}"
        assert done == ([line] if what else [])
    again = Shelf.at(filled.folder)
    assert check_shelf(again.folder).is_whole
    assert len(right(again)) == ROWS - cost
    add_rows(again, IDS, VECTORS)
    np.testing.assert_array_equal(again.read(IDS), VECTORS)
    assert repair_shelf(filled.folder) == []


def test_a_segment_cut_anywhere_and_an_old_one_restored(filled: Shelf, count: Callable) -> None:
    """Between merges and repairs; what other segments have is never lost by it."""
    chances, folder = random.Random(7), filled.folder / "segments"
    old: dict[str, bytes] = {path.name: path.read_bytes() for path in folder.iterdir()}
    cuts = restored = 0
    for trial in range(150):
        if trial % 3 == 0:  # from last month's copy
            name = chances.choice(sorted(old))
            (folder / name).write_bytes(old[name])
            restored += 1
        path = chances.choice(sorted(folder.glob("*.safetensors")))
        others = [p.name for p in folder.glob("*.safetensors") if p != path]
        shelf = Shelf.at(filled.folder)
        shelf.ids()
        known = shelf.rows.segments()
        elsewhere = {row for name in others for row in known[name].ids}
        os.truncate(path, chances.randrange(path.stat().st_size))
        cuts += 1
        assert right(Shelf.at(filled.folder)) >= elsewhere
        repair_shelf(filled.folder)
        assert right(Shelf.at(filled.folder)) >= elsewhere
        assert check_shelf(filled.folder).is_whole
        shelf = Shelf.at(filled.folder)
        add_rows(shelf, IDS, VECTORS)  # extract computes it again
        if trial % 5 == 0:
            shelf.merge()
        assert right(shelf) == set(IDS)
        old |= {p.name: p.read_bytes() for p in folder.iterdir()}
    count(cuts=cuts, old_segments_restored=restored, wrong_rows=0, rows_lost_that_others_had=0)


class Flaky(RemoteSegments):
    """A bucket that fails in the middle: of a listing, of a read, before or after a write."""

    chances = random.Random(0)
    failed = 0

    def __getattribute__(self, name: str) -> object:
        found = super().__getattribute__(name)
        if name not in ("sizes", "read_parts", "write"):
            return found

        def call(*given: object) -> object:
            chance = Flaky.chances.random()
            if chance < 0.15:
                Flaky.failed += 1
                raise RemoteError("the server went away")
            result = found(*given)
            if chance < 0.3:  # done, and nobody knows
                Flaky.failed += 1
                raise RemoteError("no answer")
            return result

        return call


def test_a_bucket_that_fails_in_the_middle(tmp_path: Path, count: Callable) -> None:
    url, trials = f"file://{tmp_path}/bucket", 60
    pushed = pulled = 0
    for trial in range(trials):
        a = Shelf.open(tmp_path / f"a{trial}", FINGERPRINT, WIDTH)
        add_rows(a, IDS[trial * 10 : trial * 10 + 30], VECTORS[trial * 10 : trial * 10 + 30])
        for shelf in (a, Shelf.open(tmp_path / f"b{trial}", FINGERPRINT, WIDTH)):
            shared = SharedShelf(shelf, url)
            shared._remote_rows.folder = Flaky(Remote(shared.remote.url))
            for _ in range(3):
                try:
                    pulled += pull([shared], [IDS])
                except RemoteError:
                    continue
                with pushing([shared], [IDS]):
                    pass
                break
            assert right(shelf) >= (set(IDS[trial * 10 : trial * 10 + 30]) if shelf is a else set())
        last = SharedShelf(a, url)  # the server is well again
        last.look()
        pushed += last.push(IDS)
        assert not last.unpushed(IDS)
    c = Shelf.open(tmp_path / "c", FINGERPRINT, WIDTH)
    everything = IDS[: (trials - 1) * 10 + 30]
    assert pull([SharedShelf(c, url)], [IDS]) == len(everything)
    np.testing.assert_array_equal(c.read(everything), VECTORS[: len(everything)])
    assert Flaky.failed > trials
    count(failures=Flaky.failed, rows=len(everything), wrong_rows=0, acknowledged_rows_lost=0)
