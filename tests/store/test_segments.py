"""Segments as files, and merges of them: at once, killed, beside damaged ones."""

import contextlib
import hashlib
import itertools
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from agiqa.core.errors import AgiqaError
from agiqa.store import Shelf
from agiqa.store.ledger import segment_rows
from agiqa.store.ledger.segments import Kind, Layout, build, described, ids_in, order, rows_of
from agiqa.store.upkeep.verification import check_shelf
from kit.stored_rows import add_rows, flip, flip_rows, make_ids, make_vectors, right_rows

FINGERPRINT = {"extractor": "nano"}
WIDTH = 8
IDS, VECTORS = make_ids(400), make_vectors(400, WIDTH)


def segments(shelf: Shelf) -> dict[str, int]:
    """Rows by name."""
    return {
        path.name: rows_of(path.name) or 0
        for path in (shelf.folder / "segments").glob("*.safetensors")
    }


def add_each(shelf: Shelf, rows: range, size: int) -> None:
    with shelf.writer() as writer:
        for start in range(rows.start, rows.stop, size):
            writer.add(IDS[start : start + size], VECTORS[start : start + size])
            writer.flush()


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf.open(tmp_path, FINGERPRINT, WIDTH)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_the_bytes_are_those_that_safetensors_writes(dtype: str, rows: int) -> None:
    kind = Kind("d" * 64, WIDTH, dtype)
    ids, vectors = make_ids(rows), make_vectors(rows, WIDTH, dtype=dtype)
    name, parts = build(kind, ids, vectors)
    data = b"".join(parts)
    assert name == f"{hashlib.sha256(data).hexdigest()}-{rows}.safetensors"
    assert len(data) == Layout(kind, rows).size
    arrays = safetensors.numpy.load(data)
    np.testing.assert_array_equal(arrays["vectors"], vectors)
    assert ids_in(arrays["image_id"].tobytes()) == ids
    layout = Layout(kind, rows)
    assert layout.is_header(data[: len(layout.header)])
    assert described(data) == kind
    for _ in range(5):  # the order of its metadata is another each time
        about = {"format": "agiqa-segment", "layout": "1", "fingerprint": "d" * 64}
        by_library = safetensors.numpy.save(arrays, about)
        assert layout.is_header(by_library[: len(layout.header)])
        assert by_library[len(layout.header) :] == data[len(layout.header) :]
    other = Layout(Kind("e" * 64, WIDTH, dtype), rows)
    assert not other.is_header(data[: len(layout.header)])


def test_names_of_segments() -> None:
    name = "a" * 64
    assert rows_of(f"{name}-12.safetensors") == 12
    for strange in (
        f"{name}-0.safetensors", f"{name}-012.safetensors", f"{name}-70000.safetensors", "notes",
        f"{name}-12.safetensors.partial", f"{name[1:]}-12.safetensors", f"{name}.safetensors",
    ):  # fmt: skip
        assert rows_of(strange) is None
    assert order(f"{'a' * 64}-12.safetensors") < order(f"{'b' * 64}-12.safetensors")
    assert order(f"{'b' * 64}-2.safetensors") < order(f"{'a' * 64}-12.safetensors")


def test_small_ones_are_merged_when_there_are_many(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_rows, "MANY", 8)
    add_each(shelf, range(segment_rows.MANY - 1), 1)
    assert len(segments(shelf)) == segment_rows.MANY - 1
    add_each(shelf, range(segment_rows.MANY - 1, segment_rows.MANY), 1)
    assert list(segments(shelf).values()) == [segment_rows.MANY]
    written = 0
    for row in range(segment_rows.MANY, 130):
        before = segments(shelf)
        add_each(shelf, range(row, row + 1), 1)
        written += sum(segments(shelf)[name] for name in segments(shelf).keys() - before.keys())
        assert len(segments(shelf)) < 3 * segment_rows.MANY
    assert written < 4 * 130  # each row is written few times
    assert shelf.merge() > 1
    assert list(segments(shelf).values()) == [130]
    np.testing.assert_array_equal(shelf.read(IDS[:130]), VECTORS[:130])
    assert shelf.merge() == 0


def test_large_ones_stay_as_they_are(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agiqa.store.ledger.segments.ROWS_A_SEGMENT", 100)
    add_each(shelf, range(400), 400)
    large = segments(shelf)
    assert list(large.values()) == [100] * 4
    assert shelf.merge() == 0
    assert segments(shelf) == large


def test_merges_at_once_lose_nothing(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pair of merges, of what one saw before another was done."""
    monkeypatch.setattr(segment_rows, "MANY", 10**6)
    chances = random.Random(0)
    add_each(shelf, range(40), 5)
    for _ in range(30):
        late = [Shelf.at(shelf.folder) for _ in range(3)]
        for one in late:
            one.ids()  # what it knows
            if chances.random() < 0.5:
                first = chances.randrange(40, 395)
                add_rows(shelf, IDS[first : first + 5], VECTORS[first : first + 5])
        for one in chances.sample(late, 3):
            one.rows.refresh = lambda: None  # type: ignore[method-assign]
            with contextlib.suppress(AgiqaError):  # segments that vanished
                for group in list(segment_rows._groups(one.rows, everything=True)):
                    segment_rows._merge(one.rows, group)
        assert set(IDS[:40]) <= right_rows(Shelf.at(shelf.folder), IDS, VECTORS)


def test_rows_with_other_numbers_are_merged_to_one_of_them(shelf: Shelf, tmp_path: Path) -> None:
    other = Shelf.open(tmp_path / "other", FINGERPRINT, WIDTH)
    add_each(shelf, range(10), 10)
    add_rows(other, IDS[5:15], VECTORS[20:30])
    for path in (other.folder / "segments").iterdir():
        shutil.copy(path, shelf.folder / "segments")
    before = shelf.read(IDS[:15])
    shelf.merge()
    assert list(segments(shelf).values()) == [15]
    np.testing.assert_array_equal(Shelf.at(shelf.folder).read(IDS[:15]), before)


def test_a_damaged_one_is_left_for_verify(shelf: Shelf) -> None:
    add_each(shelf, range(30), 10)
    bad = min(segments(shelf))
    path = shelf.folder / "segments" / bad
    flip(path, -10 * 32 - 1)
    assert shelf.merge() == 2
    assert sorted(segments(shelf).values()) == [10, 20]
    assert path.exists()
    assert len(shelf.damaged()) == 1


@pytest.mark.parametrize("stop", range(1, 8))
def test_a_merge_may_stop_anywhere(
    shelf: Shelf, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_each(shelf, range(40), 10)
    calls = itertools.count(1)

    def stopping(real: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object, **more: object) -> object:
            if next(calls) >= stop:
                raise KeyboardInterrupt
            return real(*given, **more)

        return call

    with monkeypatch.context() as patched:
        for name in ("fsync", "unlink", "replace"):
            patched.setattr(f"os.{name}", stopping(getattr(__import__("os"), name)))
        with contextlib.suppress(KeyboardInterrupt):
            shelf.merge()
    again = Shelf.at(shelf.folder)
    np.testing.assert_array_equal(again.read(IDS[:40]), VECTORS[:40])
    assert check_shelf(shelf.folder).is_whole
    again.merge()
    assert list(segments(again).values()) == [40]


def test_a_row_that_others_have_whole_comes_once(shelf: Shelf) -> None:
    add_each(shelf, range(20), 20)
    flip_rows(shelf.files.folder / max(segments(shelf)), WIDTH, 3)
    for first in (2, 3):
        shelf.rows.add(IDS[first : first + 2], VECTORS[first : first + 2])
    blocks = list(Shelf.at(shelf.folder).refreshed().blocks(IDS[:20]))
    assert sorted(name for names, _ in blocks for name in names) == sorted(IDS[:20])


def test_rows_that_vanish_for_good_are_named(shelf: Shelf) -> None:
    """Somebody deleted a segment after it was listed."""
    add_each(shelf, range(20), 10)
    shelf.ids()
    (shelf.folder / "segments" / sorted(segments(shelf))[0]).unlink()
    vectors, lost = shelf.rows.read(IDS[:20])
    assert lost in (IDS[:10], IDS[10:20])
    there = [row for row in range(20) if IDS[row] not in lost]
    np.testing.assert_array_equal(vectors[there], VECTORS[there])


def test_a_listing_that_misses_both_is_made_again(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge between the first and the last name of a listing hides rows from it."""
    add_each(shelf, range(40), 10)
    real, calls = shelf.files.sizes, itertools.count()

    def sizes() -> dict[str, int]:
        return {} if next(calls) == 0 else real()

    reader = Shelf.at(shelf.folder)
    assert len(reader.ids()) == 40
    monkeypatch.setattr(reader.files, "sizes", sizes)
    assert len(reader.ids()) == 40
