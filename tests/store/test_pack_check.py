"""Checks of packs piece by piece: both formats, every kind of damage."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from agiqa.store import PackError, open_pack, write_pack
from agiqa.store.packs.pack import read_pack_metadata
from agiqa.store.packs.pack_check import check_pack
from kit.stored_rows import make_ids, make_vectors

ROWS, WIDTH = 600, 16
PRINTS = [{"extractor": "é", "scale": 0.00392156862745098}, {"extractor": "é", "layer": 2}]


@pytest.fixture(params=["zarr", "h5"])
def pack(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"nano.{request.param}"
    write_pack(path, "nano", ["a", "é"], PRINTS, make_ids(ROWS), make_vectors(ROWS, 2, WIDTH))
    return path


def files(pack: Path) -> list[Path]:
    return [pack] if pack.is_file() else [path for path in pack.rglob("*") if path.is_file()]


def test_a_whole_pack(pack: Path) -> None:
    report = check_pack(pack)
    assert report.is_whole
    assert (report.rows, report.chunks) == (ROWS, 3)
    assert report.size == sum(path.stat().st_size for path in files(pack))
    assert open_pack(pack).image_ids == tuple(make_ids(ROWS))
    assert read_pack_metadata(pack)["names"] == ["a", "é"]


def test_a_changed_row_is_named_though_its_chunk_is_sound(pack: Path) -> None:
    """Written by the library itself, so that the chunk's own checksum fits."""
    if pack.is_file():
        with h5py.File(pack, "r+") as file:
            file["vectors"][300, 1, 3] = np.nan
    else:
        zarr.open_array(pack / "vectors", mode="r+")[300, 1, 3] = np.nan
    found = check_pack(pack).findings
    assert [(each.path.name, each.image_ids) for each in found] == [
        ("vectors", (make_ids(ROWS)[300],))
    ]
    assert found[0].problem == "chunk 1 has rows that are missing, changed or not finite"


@pytest.mark.parametrize("name", ["vectors/c.1.0.0", "image_id/c.0.0", "row_crc32/c.0"])
@pytest.mark.parametrize("content", [None, b"", b"short"])
def test_missing_and_short_chunks_of_zarr(tmp_path: Path, name: str, content: bytes | None) -> None:
    pack = tmp_path / "nano.zarr"
    write_pack(pack, "nano", ["a"], PRINTS[:1], make_ids(ROWS), make_vectors(ROWS, 1, WIDTH))
    if content is None:
        (pack / name).unlink()
    else:
        (pack / name).write_bytes(content)
    assert not check_pack(pack).is_whole


@pytest.mark.parametrize("name", ["c.3.0.0", "c.999.0.0", "c.0.1.0", "c.00.0.0", "c.0.0"])
def test_a_chunk_beyond_the_arrays_rows_is_a_stranger(tmp_path: Path, name: str) -> None:
    path = tmp_path / "nano.zarr"
    write_pack(path, "nano", ["a", "é"], PRINTS, make_ids(ROWS), make_vectors(ROWS, 2, WIDTH))
    (path / "vectors" / name).write_bytes(b"x")
    (finding,) = check_pack(path).findings
    assert "is nothing that a pack of agiqa has" in str(finding)


@pytest.mark.parametrize("array", ["vectors", "image_id", "row_crc32"])
def test_a_pack_without_one_of_its_arrays(pack: Path, array: str) -> None:
    if pack.is_file():
        with h5py.File(pack, "r+") as file:
            del file[array]
    else:
        (pack / array).rename(pack.with_name("elsewhere"))
    assert not check_pack(pack).is_whole


def test_foreign_and_absent_packs_are_one_finding(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.h5"
    with h5py.File(foreign, "w") as file:
        file["x"] = [1]
    zarr.create_group(tmp_path / "foreign.zarr")
    (tmp_path / "text.h5").write_text("nonsense")
    for name in ("foreign.h5", "foreign.zarr", "text.h5", "absent.zarr"):
        report = check_pack(tmp_path / name)
        assert len(report.findings) == 1, name
        assert report.rows == 0
        with pytest.raises(PackError, match=name):
            open_pack(tmp_path / name)
