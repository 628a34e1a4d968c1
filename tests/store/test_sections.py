"""A shelf that several ranks wrote: one union, whoever reads it, and no writer in another's way."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agiqa.store import DamagedRowsError, LockedError, Shelf
from agiqa.store.chunks import create_array, id_bytes, row_checksums
from agiqa.store.ledger.journal import Journal
from agiqa.store.ledger.shelf_check import repair_shelf

FINGERPRINT = {"extractor": "nano", "prompt": "Describe the image."}
Ids = Callable[..., list[str]]
Make = Callable[..., np.ndarray]


def open_section(root: Path, section: int = 0) -> Shelf:
    return Shelf.open(root, FINGERPRINT, 8, section=section)


def add(root: Path, section: int, ids: list[str], vectors: np.ndarray) -> Shelf:
    shelf = open_section(root, section)
    with shelf.writer() as writer:
        writer.add(ids, vectors)
    return shelf


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)


def test_sections_are_united_whoever_reads(
    tmp_path: Path, make_ids: Ids, make_vectors: Make
) -> None:
    ids, vectors = make_ids(900), make_vectors(900, 8)
    early = open_section(tmp_path)  # before there was any section but its own
    for section in (11, 2, 0):
        share = slice({0: 0, 2: 1, 11: 2}[section], None, 3)
        add(tmp_path, section, ids[share], vectors[share])
    order = np.random.default_rng(1).permutation(900)
    for shelf in (early, open_section(tmp_path), open_section(tmp_path, 5)):
        assert shelf.ids() == frozenset(ids)
        np.testing.assert_array_equal(shelf.read([ids[row] for row in order]), vectors[order])
        assert shelf.has(ids[2])
        assert shelf.damaged() == ()
    assert not (early.folder / "part-5").exists()  # a reader leaves nothing


def test_the_first_section_with_a_row_wins(
    tmp_path: Path, make_ids: Ids, make_vectors: Make
) -> None:
    ids, vectors = make_ids(3), make_vectors(3, 8)
    add(tmp_path, 10, ids, vectors)
    add(tmp_path, 2, ids[:2], vectors[1:])
    np.testing.assert_array_equal(open_section(tmp_path).read(ids), vectors[[1, 2, 2]])


def test_a_shelf_from_before_there_were_sections(
    tmp_path: Path, make_ids: Ids, make_vectors: Make
) -> None:
    """Laid out by hand as version 0.1.0 did; it is read, and goes on in either section."""
    ids, vectors = make_ids(300), make_vectors(300, 8)
    folder = tmp_path / open_section(tmp_path / "elsewhere").folder.name
    folder.mkdir()
    description = {"format": "agiqa-ledger", "layout": 1, "width": 8, "dtype": "float16"}
    text = json.dumps(description | {"fingerprint": FINGERPRINT})
    (folder / "fingerprint.json").write_text(text)
    array = create_array(folder / "vectors", (4096, 8), "<f2", fill_value=float("nan"))
    array[:200] = vectors[:200]
    (folder / "journal.jsonl").touch()
    Journal(folder / "journal.jsonl").acknowledge(
        0, ids[:200], row_checksums(id_bytes(ids[:200]), vectors[:200])
    )
    assert open_section(tmp_path).ids() == frozenset(ids[:200])
    add(tmp_path, 1, ids[200:250], vectors[200:250])
    add(tmp_path, 0, ids[250:], vectors[250:])
    np.testing.assert_array_equal(open_section(tmp_path).read(ids), vectors)
    names = {path.name for path in folder.iterdir()} - {"writer.lock"}
    assert names == {"fingerprint.json", "journal.jsonl", "vectors", "part-1"}


def test_sections_are_written_at_once_and_each_by_one(
    tmp_path: Path, make_ids: Ids, make_vectors: Make
) -> None:
    ids, vectors = make_ids(4), make_vectors(4, 8)
    one, two = open_section(tmp_path, 1), open_section(tmp_path, 2)
    assert not one.is_written(1)
    with one.writer() as first, two.writer() as second:
        first.add(ids[:2], vectors[:2])
        second.add(ids[2:], vectors[2:])
        again = rf"part-1: expected to be the only writer, found process {os.getpid()} on"
        with pytest.raises(LockedError, match=again), open_section(tmp_path, 1).writer():
            pass
        reader = open_section(tmp_path)
        reader.ids()
        assert [reader.is_written(section) for section in range(4)] == [False, True, True, False]
    assert not reader.is_written(1)
    np.testing.assert_array_equal(reader.read(ids), vectors)


def test_threads_that_make_one_section_at_once(tmp_path: Path) -> None:
    refused: list[LockedError] = []

    def write() -> None:
        try:
            with open_section(tmp_path, 3).writer():
                pass
        except LockedError as error:
            refused.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) < 4
    left = {path.name for path in open_section(tmp_path).folder.iterdir()}
    assert {"part-3"} == {name for name in left if "part" in name}


def test_damage_in_a_section_is_named_and_repaired(
    tmp_path: Path, make_ids: Ids, make_vectors: Make
) -> None:
    ids, vectors = make_ids(600), make_vectors(600, 8)
    add(tmp_path, 0, ids[:300], vectors[:300])
    shelf = add(tmp_path, 1, ids[300:], vectors[300:])
    for folder in (shelf.folder, shelf.folder / "part-1"):
        flip(folder / "vectors" / "c.0.0")
    bad = [*ids[:256], *ids[300:556]]
    with pytest.raises(DamagedRowsError, match="512 damaged") as caught:
        shelf.read(ids)
    assert set(caught.value.image_ids) == set(shelf.damaged()) == set(bad)
    repair_shelf(shelf.folder)
    lost = frozenset(ids) - shelf.ids()
    assert len(lost) == 2  # one in each section: the others of their chunks were saved
    assert lost < set(bad)
    add(tmp_path, 1, bad, np.concatenate([vectors[:256], vectors[300:556]]))
    np.testing.assert_array_equal(shelf.read(ids), vectors)


def test_a_whole_copy_in_another_section_stands_in(
    tmp_path: Path, make_ids: Ids, make_vectors: Make
) -> None:
    ids, vectors = make_ids(5), make_vectors(5, 8)
    add(tmp_path, 0, ids, vectors)
    shelf = add(tmp_path, 1, ids[1:3], vectors[1:3])
    flip(shelf.folder / "vectors" / "c.0.0")
    np.testing.assert_array_equal(shelf.read(ids[1:3]), vectors[1:3])
    assert shelf.damaged() == (ids[0], *ids[3:])
