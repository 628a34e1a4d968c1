"""Checks of packs piece by piece: both formats, every kind of damage."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from agiqa.core.errors import AgiqaError
from agiqa.store import open_pack, read_pack, write_pack
from agiqa.store.checks import check_pack
from agiqa.store.packs.pack import read_pack_metadata
from kit.stored_rows import files, make_ids, make_vectors

ROWS, WIDTH = 600, 16
PRINTS = [{"extractor": "é", "scale": 0.00392156862745098}, {"extractor": "é", "layer": 2}]


@pytest.fixture(params=["zarr", "h5"])
def pack(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"nano.{request.param}"
    write_pack(path, "nano", ["a", "é"], PRINTS, make_ids(ROWS), make_vectors(ROWS, 2, WIDTH))
    return path


def test_a_whole_pack(pack: Path) -> None:
    report = check_pack(pack)
    assert report.is_whole
    assert (report.rows, report.chunks) == (ROWS, 3)
    assert report.size == sum(map(len, files(pack).values()))
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
    first = make_ids(ROWS)[256]
    message = rf"found 256 .*\(first: row 256, image {first}\)"
    if not name.startswith("vectors"):
        message = f"array {name.partition('/')[0]} whose chunk 0 is missing"
    with pytest.raises(AgiqaError, match=message):
        read_pack(pack)


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
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = [1]
    zarr.create_group(tmp_path / "foreign.zarr")
    zarr.create_array(tmp_path / "array.zarr", shape=(3,), dtype="f4")
    zarr.open_group(tmp_path / "two.zarr", mode="w", zarr_format=2)
    (tmp_path / "text.h5").write_text("nonsense")
    (tmp_path / "file.zarr").write_text("x")
    for name in ("folder.zarr", "folder.h5"):
        (tmp_path / name).mkdir()
    for path in (*sorted(tmp_path.iterdir()), tmp_path / "absent.zarr"):
        report = check_pack(path)
        assert (len(report.findings), report.rows) == (1, 0), path
        with pytest.raises(AgiqaError, match=rf"{path.name}.*expected|expected.*{path.name}"):
            read_pack(path)
    with pytest.raises(AgiqaError, match=r"expected a pack named \*\.zarr or \*\.h5, found '\.pt'"):
        read_pack(tmp_path / "features.pt")
