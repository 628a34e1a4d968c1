"""Zarr to HDF5 and back is the same bytes, and nothing is overwritten unasked."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agiqa.core.errors import AgiqaError
from agiqa.store import (
    DamagedRowsError,
    PackError,
    convert_pack,
    read_pack,
    row_ids_digest,
    write_pack,
)
from kit.stored_rows import files, make_ids, make_vectors


def write(path: Path, ids: list[str], vectors: np.ndarray) -> Path:
    names = [f"v{place}" for place in range(vectors.shape[1])]
    prints = [{"extractor": "é", "lr": 0.1, "x": [1, None], "name": name} for name in names]
    write_pack(
        path, "nano é", names, prints, ids, vectors, ["e" * 64], {names[0]: row_ids_digest(ids)}
    )
    return path


@settings(max_examples=10)
@given(
    rows=st.integers(1, 600),
    names=st.integers(1, 3),
    width=st.integers(1, 9),
    dtype=st.sampled_from(["float16", "float32"]),
    turn=st.booleans(),
)
def test_there_and_back_is_the_same_to_the_byte(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    names: int,
    width: int,
    dtype: str,
    turn: bool,
) -> None:
    """And what a conversion writes is what `write_pack` would have written."""
    folder = tmp_path_factory.mktemp("packs")
    one, other = (".h5", ".zarr") if turn else (".zarr", ".h5")
    given = make_ids(rows), make_vectors(rows, names, width, dtype=dtype)
    pack = write(folder / f"a{one}", *given)
    assert convert_pack(pack, folder / "deep" / f"b{other}")
    assert convert_pack(folder / "deep" / f"b{other}", folder / f"c{one}")
    assert files(folder / f"c{one}") == files(pack)
    assert files(folder / "deep" / f"b{other}") == files(write(folder / f"d{other}", *given))


def test_what_is_there_stays(tmp_path: Path) -> None:
    pack = write(tmp_path / "a.zarr", make_ids(5), make_vectors(5, 1, 2))
    other = write(tmp_path / "b.h5", make_ids(5), make_vectors(5, 1, 2, seed=1))
    before = files(other)
    with pytest.raises(AgiqaError, match=r"b\.h5: expected nothing there, .* with --force"):
        convert_pack(pack, other)
    assert files(other) == before
    assert convert_pack(pack, other, force=True)
    assert np.array_equal(read_pack(other).vectors, read_pack(pack).vectors)
    assert not convert_pack(pack, other)  # the same already
    foreign = tmp_path / "thesis.h5"
    foreign.write_text("years of work")
    for force in (False, True):
        with pytest.raises(AgiqaError, match=r"thesis\.h5"):
            convert_pack(pack, foreign, force)
    assert foreign.read_text() == "years of work"
    (tmp_path / "empty.zarr").mkdir()
    assert convert_pack(other, tmp_path / "empty.zarr")


def test_a_damaged_target_is_replaced_only_when_told(tmp_path: Path) -> None:
    pack = write(tmp_path / "a.h5", make_ids(5), make_vectors(5, 1, 2))
    convert_pack(pack, target := tmp_path / "b.zarr")
    (target / "vectors/c.0.0.0").unlink()
    with pytest.raises(AgiqaError, match="--force"):
        convert_pack(pack, target)
    assert convert_pack(pack, target, force=True)
    assert len(read_pack(target).vectors) == 5


def test_wrong_names_and_damaged_packs_are_one_line(tmp_path: Path) -> None:
    pack = write(tmp_path / "a.zarr", make_ids(5), make_vectors(5, 1, 2))
    with pytest.raises(AgiqaError, match=r"b\.zarr: expected a name that ends in \.h5, found \.z"):
        convert_pack(pack, tmp_path / "b.zarr")
    with pytest.raises(AgiqaError, match=r"b\.npz: expected a pack named \*\.zarr or \*\.h5"):
        convert_pack(pack, tmp_path / "b.npz")
    with pytest.raises(PackError, match=r"none\.h5: expected a pack, found nothing"):
        convert_pack(tmp_path / "none.h5", tmp_path / "b.zarr")
    (pack / "vectors/c.0.0.0").unlink()
    with pytest.raises(DamagedRowsError, match="expected 5 whole rows, found 5 damaged"):
        convert_pack(pack, tmp_path / "b.h5")
    assert not (tmp_path / "b.h5").exists()
