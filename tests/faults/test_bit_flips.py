"""A flipped bit anywhere: found by the check, never returned as data, mended without a lie."""

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.store import Shelf, read_pack, write_pack
from agiqa.store.checks import check_pack, check_shelf, repair_shelf
from kit.stored_rows import make_ids, make_vectors

FINGERPRINT = {"extractor": "nano", "prompt": "Describe the image."}
ROWS, WIDTH, FLIPS = 600, 32, 100
IDS, VECTORS = make_ids(ROWS), make_vectors(ROWS, WIDTH)


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
