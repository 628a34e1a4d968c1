from pathlib import Path

import numpy as np
import pytest

from agiqa.store.packs.zarr_arrays import create_array, read_chunk


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8", "<u4"])
def test_what_zarr_wrote_is_read(tmp_path: Path, dtype: str) -> None:
    block = np.random.default_rng(0).integers(0, 99, (256, 3)).astype(dtype)
    array = create_array(tmp_path / "array", (300, 3), np.dtype(dtype).str, chunk_rows=256)
    array[...] = np.concatenate([block, block[:44]])
    found = read_chunk(tmp_path / "array" / "c.0.0", (256, 3), dtype)
    np.testing.assert_array_equal(found, block)
    assert found.dtype == block.dtype
    assert read_chunk(tmp_path / "array" / "c.2.0", (256, 3), dtype) is None
    assert read_chunk(tmp_path / "array" / "c.0.0", (256, 4), dtype) is None
