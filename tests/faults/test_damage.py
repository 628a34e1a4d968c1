"""Segments missing, cut short, doubled or old, a bit flipped anywhere: named, never data."""

import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.store import RemoteError, Shelf, pull, pushing, read_pack, write_pack
from agiqa.store.ledger.segments import RemoteSegments
from agiqa.store.ledger.sharing import SharedShelf
from agiqa.store.remote import Remote
from agiqa.store.upkeep.verification import check_pack, check_shelf, repair_shelf
from kit.stored_rows import add_rows, flip, make_ids, make_vectors, right_rows

FINGERPRINT = {"extractor": "nano", "prompt": "Describe the image."}
WIDTH, ROWS, FLIPS = 32, 868, 100
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
    "a bit of a row": (lambda path: flip(path, 5000), 1, SUM),
    "a bit of an id": (lambda path: flip(path, -1), 1, SUM),
    "a bit of the header": (lambda path: flip(path, 100), 0, SUM),
    "another segment": (
        lambda path: shutil.copy(next(path.parent.glob("*-256.safetensors")), path),
        100,
        OTHER,
    ),
}


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


def flipped(path: Path, moments: random.Random) -> bytes:
    """Flip one bit of a file; what it was before."""
    whole = path.read_bytes()
    data = bytearray(whole)
    data[moments.randrange(len(data))] ^= 1 << moments.randrange(8)
    path.write_bytes(data)
    return whole


def choose(folder: Path, moments: random.Random) -> Path:
    """A file: half the time any, half the time by size, so that small ones come up as well."""
    files = [folder] if folder.is_file() else [p for p in sorted(folder.rglob("*")) if p.is_file()]
    files = [path for path in files if path.stat().st_size]
    weights = None if moments.random() < 0.5 else [path.stat().st_size for path in files]
    return moments.choices(files, weights)[0]


def make_shelf(root: Path) -> Shelf:
    """Several segments, a few rows in two of them."""
    shelf = Shelf.open(root, FINGERPRINT, WIDTH)
    with shelf.writer() as writer:
        for start in range(0, ROWS, 150):
            writer.add(IDS[start : start + 150], VECTORS[start : start + 150])
            writer.flush()
    shelf.rows.add(IDS[140:160], VECTORS[140:160])
    return Shelf.open(root, FINGERPRINT, WIDTH)


def read_whole_rows(root: Path) -> int:
    """Read every row that can be read; how many are not what was written."""
    shelf = Shelf.open(root, FINGERPRINT, WIDTH)
    whole = shelf.ids().difference(shelf.damaged())
    there = [row for row, image_id in enumerate(IDS) if image_id in whole]
    found = shelf.read([IDS[row] for row in there])
    return int((found.view("u2") != VECTORS[there].view("u2")).any(axis=1).sum())


def test_a_bit_flipped_in_a_shelf(tmp_path: Path, count: Callable) -> None:
    moments, found, lies, absent = random.Random(3), 0, 0, 0
    shelf = make_shelf(tmp_path)
    for _ in range(FLIPS):
        path = choose(shelf.folder, moments)
        whole = flipped(path, moments)
        found += not check_shelf(shelf.folder).is_whole
        with suppress(AgiqaError):
            lies += read_whole_rows(tmp_path)
        if path.suffix == ".safetensors":
            again = Shelf.at(shelf.folder)
            left = again.ids().difference(again.damaged())
            absent = max(absent, ROWS - len(left.intersection(IDS)))
        path.write_bytes(whole)
    assert read_whole_rows(tmp_path) == 0
    count(flips=FLIPS, found=found, returned_as_data=lies, most_rows_lost_by_one=absent)
    assert (found, lies, absent) == (FLIPS, 0, 1)


def test_a_shelf_of_many_flipped_bits_is_repaired(tmp_path: Path, count: Callable) -> None:
    """In several files at once; then what is left is right, and the rest can be added again."""
    lost, trials = 0, 10
    for trial in range(trials):
        root, moments = tmp_path / str(trial), random.Random(trial)
        shelf = make_shelf(root)
        for _ in range(5):
            path = choose(shelf.folder, moments)
            if path.name != "fingerprint.json":
                flipped(path, moments)
        repair_shelf(shelf.folder)
        again = Shelf.open(root, FINGERPRINT, WIDTH)
        assert check_shelf(again.folder).is_whole
        assert read_whole_rows(root) == 0
        lost += ROWS - len(again.ids())
        assert lost <= 5 * (trial + 1)
        with again.writer() as writer:
            writer.add([image_id for image_id in IDS if image_id not in again.rows], missing(again))
        np.testing.assert_array_equal(again.read(IDS), VECTORS)
    count(trials=trials, rows_to_compute_again=lost, returned_as_data=0)


def missing(shelf: Shelf) -> np.ndarray:
    return VECTORS[[row for row, image_id in enumerate(IDS) if image_id not in shelf.rows]]


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_bit_flipped_in_a_pack(tmp_path: Path, suffix: str, count: Callable) -> None:
    path, moments = tmp_path / f"a{suffix}", random.Random(5)
    vectors = np.stack([VECTORS, VECTORS[::-1]], axis=1)
    write_pack(path, "nano", ["a", "b"], [{"p": 1}, {"p": 2}], IDS, vectors)
    found = refused = lies = 0
    for _ in range(FLIPS):
        file = choose(path, moments)
        whole = flipped(file, moments)
        found += not check_pack(path).is_whole
        try:
            store = read_pack(path)
        except AgiqaError:
            refused += 1
        else:
            same = store.image_ids == tuple(IDS) and store.fingerprints == ({"p": 1}, {"p": 2})
            lies += not (same and store.vectors.tobytes() == vectors.tobytes())
        file.write_bytes(whole)
    assert check_pack(path).is_whole
    count(flips=FLIPS, found=found, refused_by_a_read=refused, returned_as_data=lies)
    assert (found, lies) == (FLIPS, 0)
    assert refused > FLIPS // 2
