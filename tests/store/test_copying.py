"""Rows of one shelf into another: every whole row once, damaged ones never, whatever stops it."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.store import Shelf, add_vector, require_fits
from agiqa.store.ledger import segments
from agiqa.store.ledger.segments import LocalSegments
from agiqa.store.ledger.shelf_folders import Description
from kit.stored_rows import add_rows, flip_rows, make_ids, make_vectors, right_rows

PRINT = {"extractor": "nano", "prompt": "q"}
WIDTH, ROWS = 8, 600


def fill(root: Path, ids: list[str], vectors: np.ndarray, rank: int = 0) -> Shelf:
    return add_rows(Shelf.open(root, PRINT, WIDTH, rank=rank), ids, vectors)


def test_missing_rows_are_added_once(tmp_path: Path) -> None:
    """From two segments with rows in common, to a shelf that has some."""
    ids, vectors = make_ids(ROWS), make_vectors(ROWS, WIDTH)
    fill(tmp_path / "a", ids[:400], vectors[:400])
    source = fill(tmp_path / "a", ids[300:], vectors[300:], rank=2)
    target = fill(tmp_path / "b", ids[100:150], vectors[100:150])
    found = add_vector(source, tmp_path / "b")
    assert (found.rows, found.added, found.present, found.kept) == (ROWS, ROWS - 50, 50, ())
    again = add_vector(source, tmp_path / "b")
    assert (again.added, again.present, again.damaged) == (0, ROWS, ())
    assert np.array_equal(Shelf.at(target.folder).read(ids), vectors)


def test_damaged_rows_are_left_out_and_named(tmp_path: Path) -> None:
    """A flipped bit takes its row, unless the target has it."""
    ids, vectors = make_ids(ROWS), make_vectors(ROWS, WIDTH)
    source = fill(tmp_path / "a", ids, vectors)
    target = fill(tmp_path / "b", ids[256:266], vectors[256:266])
    (path,) = (source.folder / "segments").glob("*.safetensors")
    flip_rows(path, WIDTH, 3, 260, 599)
    found = add_vector(source, tmp_path / "b")
    assert found.damaged == (ids[3], ids[599])
    assert (found.added, found.present) == (ROWS - 12, 10)
    assert np.array_equal(target.read(ids[4:599]), vectors[4:599])


@pytest.mark.parametrize(("width", "dtype"), [(9, "float16"), (8, "float32")])
def test_another_width_or_dtype_is_one_line(tmp_path: Path, width: int, dtype: str) -> None:
    require_fits(tmp_path, [(Path("there.zarr"), Description(PRINT, width, dtype))])  # nothing yet
    Shelf.open(tmp_path, PRINT, WIDTH)
    require_fits(tmp_path, [(Path("there.zarr"), Description(PRINT, WIDTH, "float16"))])
    with pytest.raises(
        AgiqaError, match=rf"there\.zarr: .* width 8, float16, .* found width {width}, {dtype}; one"
    ):
        require_fits(tmp_path, [(Path("there.zarr"), Description(PRINT, width, dtype))])


@pytest.mark.parametrize("done", [0, 1, 7, 20])
def test_what_stops_in_the_middle_loses_nothing_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    """That a segment survives a kill, tests/faults show; here, that the next call goes on."""
    ids, vectors = make_ids(ROWS), make_vectors(ROWS, WIDTH)
    source, target = fill(tmp_path / "a", ids, vectors), Shelf.open(tmp_path / "b", PRINT, WIDTH)
    monkeypatch.setattr(segments, "ROWS_A_SEGMENT", 20)  # 30 segments
    write, written = LocalSegments.write, itertools.count()

    def fail(folder: LocalSegments, *given: Any) -> None:
        if next(written) >= done:
            raise AgiqaError("stopped")
        write(folder, *given)

    with monkeypatch.context() as patch:
        patch.setattr(LocalSegments, "write", fail)
        with pytest.raises(AgiqaError, match="stopped"):
            add_vector(source, tmp_path / "b")
    there = right_rows(target, ids, vectors)
    assert len(there) == 20 * done
    found = add_vector(source, tmp_path / "b")
    assert (found.added, found.present) == (ROWS - len(there), len(there))
    assert np.array_equal(Shelf.at(target.folder).read(ids), vectors)
