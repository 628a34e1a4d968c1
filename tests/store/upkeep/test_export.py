"""Zarr to HDF5 and back is the same bytes; plain numpy and safetensors read an export."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable, write_table
from agiqa.store import (
    DamagedRowsError,
    PackError,
    read_pack,
    row_ids_digest,
    write_pack,
)
from agiqa.store.upkeep.export import convert_pack, export
from kit.stored_rows import files, make_ids, make_vectors

NAMES = ["semantic_content.last", "Ist es schön? =..:x"]
PRINTS = [{"extractor": "lmm", "prompt": name} for name in NAMES]
ROWS = 7


@pytest.fixture(params=[".zarr", ".h5"])
def pack(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "tiny" / f"nano{request.param}"
    write_pack(path, "nano", NAMES, PRINTS, ids(), vectors(), ["e" * 64])
    return path


def ids() -> list[str]:
    return [f"{row:064x}" for row in range(ROWS)]


def vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, 2, 5)).astype(np.float16)


@pytest.mark.parametrize("with_table", [False, True])
def test_both_formats_hold_all_of_the_pack(
    pack: Path, tmp_path: Path, make_table: Callable[..., ImagesTable], with_table: bool
) -> None:
    if with_table:
        write_table(make_table(["a"] * ROWS), pack.parent)
    arrays, tensors = tmp_path / "out" / "a.npz", tmp_path / "a.safetensors"
    export(pack, arrays)
    export(pack, tensors)
    with np.load(arrays, allow_pickle=False) as npz:
        about = json.loads(str(npz["metadata"]))
        assert list(npz["image_id"]) == ids()
        for place, name in enumerate(NAMES):
            assert np.array_equal(npz[f"vectors/{name}"], vectors()[:, place])
            assert npz[f"vectors/{name}"].dtype == np.float16
        paths = list(npz["path"]) if "path" in npz else None
    with safe_open(tensors, "numpy") as file:
        assert {*file.keys(), "metadata"} | ({"path"} if paths else set()) == set(npz.files)
        assert [bytes(row).hex() for row in file.get_tensor("image_id")] == ids()
        for place, name in enumerate(NAMES):
            assert np.array_equal(file.get_tensor(f"vectors/{name}"), vectors()[:, place])
        more = json.loads(file.metadata()["agiqa"])
    assert paths == more.pop("paths", None)
    assert paths == ([f"{row:04d}.png" for row in range(ROWS)] if with_table else None)
    assert about == more
    assert (about["names"], about["fingerprints"]) == (NAMES, PRINTS)
    assert (about["extractor"], about["left_out"]) == ("nano", ["e" * 64])


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_the_same_pack_gives_the_same_bytes_and_nothing_is_overwritten_unasked(
    pack: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"a{suffix}"
    export(pack, out)
    first = out.read_bytes()
    with pytest.raises(
        AgiqaError, match=rf"a\{suffix}: expected nothing there, found a file; .*--"
    ):
        export(pack, out)
    out.write_text("else")
    export(pack, out, force=True)
    assert out.read_bytes() == first
    assert out.stat().st_mode & 0o444 == 0o444
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(AgiqaError, match="found a folder; name another file"):
        export(pack, tmp_path / f"folder{suffix}", force=True)


def test_what_does_not_fit_is_one_line(
    pack: Path, tmp_path: Path, make_table: Callable[..., ImagesTable]
) -> None:
    with pytest.raises(
        AgiqaError, match=r"a\.pt: expected a file named \*\.safetensors or \*\.npz"
    ):
        export(pack, tmp_path / "a.pt")
    (tmp_path / "fake.h5").write_bytes(b"\x80\x02K\x01.")
    with pytest.raises(AgiqaError, match=r"fake\.h5: expected an HDF5 pack of agiqa"):
        export(tmp_path / "fake.h5", tmp_path / "a.npz")
    with pytest.raises(AgiqaError, match=r"a\.npz: expected a pack named"):
        export(tmp_path / "a.npz", tmp_path / "b.npz")
    write_table(make_table(["a"] * (ROWS - 2)), pack.parent)
    with pytest.raises(AgiqaError, match="without 2 of its 7 images"):
        export(pack, tmp_path / "a.npz")
    assert not (tmp_path / "a.npz").exists()


def test_names_that_collide_as_files_are_refused(tmp_path: Path) -> None:
    write_pack(tmp_path / "a.zarr", "nano", ["Quality", "quality"], PRINTS, ids(), vectors())
    with pytest.raises(AgiqaError, match="differ in more than upper and lower case"):
        export(tmp_path / "a.zarr", tmp_path / "a.npz")


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
