"""Chunks and journal lines of a shelf that are missing, cut short or empty: named, never data."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.store import DamagedRowsError, Shelf
from agiqa.store.ledger.shelf_check import check_shelf, repair_shelf
from kit.stored_rows import make_ids, make_vectors

FINGERPRINT = {"extractor": "nano", "prompt": "Describe the image."}
WIDTH = 64


@pytest.fixture
def filled(tmp_path: Path) -> Shelf:
    """Four chunks, the last one with 100 rows."""
    shelf = Shelf.open(tmp_path, FINGERPRINT, WIDTH)
    with shelf.writer() as writer:
        writer.add(make_ids(868), make_vectors(868, WIDTH))
    return Shelf.open(tmp_path, FINGERPRINT, WIDTH)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "zero bytes": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "without its checksum": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "one bit": lambda path: path.write_bytes(flip(path.read_bytes(), 5000)),
    "another chunk": lambda path: shutil.copy(path.with_name("c.0.0"), path),
}


def flip(data: bytes, place: int, bit: int = 1) -> bytes:
    return data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("chunk", [1, 3])
def test_damage_is_named_and_can_be_repaired(filled: Shelf, damage: str, chunk: int) -> None:
    ids, vectors = make_ids(868), make_vectors(868, WIDTH)
    DAMAGE[damage](filled.folder / "vectors" / f"c.{chunk}.0")
    bad = ids[chunk * 256 : (chunk + 1) * 256]
    good = [image_id for image_id in ids if image_id not in bad]
    with pytest.raises(DamagedRowsError, match=rf"{len(bad)} damaged .* image {bad[0]}") as caught:
        filled.read(ids)
    assert caught.value.image_ids == tuple(bad)
    assert filled.damaged() == tuple(bad)
    assert len(filled.read(good)) == len(good)
    assert repair_shelf(filled.folder)  # says what it did
    kept = sorted(filled.ids())
    assert frozenset(good) <= frozenset(kept) <= frozenset(ids)
    np.testing.assert_array_equal(filled.read(kept), vectors[[ids.index(name) for name in kept]])
    with filled.writer() as writer:
        writer.add(ids, vectors)
    np.testing.assert_array_equal(filled.read(ids), vectors)


def test_a_journal_line_torn_by_a_power_cut_costs_its_own_rows_alone(
    filled: Shelf, tmp_path: Path
) -> None:
    ids, vectors = make_ids(868), make_vectors(868, WIDTH)
    journal = filled.folder / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-30])
    shelf = Shelf.open(tmp_path, FINGERPRINT, WIDTH)
    assert shelf.ids() == frozenset(ids[:768])
    with shelf.writer() as writer:
        writer.add(ids, vectors)
    np.testing.assert_array_equal(Shelf.open(tmp_path, FINGERPRINT, WIDTH).read(ids), vectors)


def test_array_metadata_that_does_not_parse_costs_no_row(filled: Shelf) -> None:
    path = filled.folder / "vectors" / "zarr.json"
    whole = path.read_text()
    path.write_text(whole.replace("[", "(", 1))
    ids, vectors = make_ids(868), make_vectors(868, WIDTH)
    np.testing.assert_array_equal(filled.read(ids), vectors)  # the journal and the chunks say all
    with pytest.raises(AgiqaError, match=r"expected the metadata of .* does not parse: .*--repair"):
        filled.writer().__enter__()
    assert [finding.path for finding in check_shelf(filled.folder).findings] == [path]
    assert repair_shelf(filled.folder) == [f"{path}: written anew"]
    with filled.writer() as writer:
        writer.add(ids, vectors)
    np.testing.assert_array_equal(filled.read(ids), vectors)
