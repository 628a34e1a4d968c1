from pathlib import Path

import numpy as np
import pytest
import zarr

from agiqa.store.chunks import DTYPES, create_array, read_chunk, write_chunk


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_chunk_has_the_bytes_that_zarr_would_write(tmp_path: Path, dtype: str) -> None:
    block = np.random.default_rng(0).standard_normal((256, 24)).astype(dtype)
    for name in ("ours", "zarrs"):
        create_array(tmp_path / name, (1024, 24), DTYPES[dtype], fill_value=float("nan"))
    write_chunk(tmp_path / "ours", 2, block)
    zarr.open_array(tmp_path / "zarrs", mode="r+")[512:768] = block
    written = [path for path in (tmp_path / "zarrs").iterdir() if path.name != "zarr.json"]
    assert [path.name for path in written] == ["c.2.0"]
    assert (tmp_path / "ours" / "c.2.0").read_bytes() == written[0].read_bytes()


def test_a_column_major_or_big_endian_block_is_stored_alike(tmp_path: Path) -> None:
    block = np.arange(256 * 3, dtype="<f4").reshape(256, 3)
    create_array(tmp_path / "array", (768, 3), "<f4", fill_value=float("nan"))
    for number, same in enumerate((block, np.asfortranarray(block), block.astype(">f4"))):
        write_chunk(tmp_path / "array", number, same)
    found = [(tmp_path / "array" / f"c.{number}.0").read_bytes() for number in range(3)]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8", "<u4"])
def test_what_zarr_wrote_is_read(tmp_path: Path, dtype: str) -> None:
    block = np.random.default_rng(0).integers(0, 99, (256, 3)).astype(dtype)
    array = create_array(tmp_path / "array", (300, 3), np.dtype(dtype).str)
    array[...] = np.concatenate([block, block[:44]])
    found = read_chunk(tmp_path / "array" / "c.0.0", (256, 3), dtype)
    np.testing.assert_array_equal(found, block)
    assert found.dtype == block.dtype
    assert read_chunk(tmp_path / "array" / "c.2.0", (256, 3), dtype) is None
    assert read_chunk(tmp_path / "array" / "c.0.0", (256, 4), dtype) is None
