from pathlib import Path

import numpy as np
import pytest

from agiqa.store.packs.zarr_arrays import ZarrArray


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "|u1", "<u4"])
def test_what_zarr_wrote_is_read(tmp_path: Path, dtype: str) -> None:
    block = np.random.default_rng(0).integers(0, 99, (256, 3)).astype(dtype)
    array = ZarrArray(tmp_path / "array", (300, 3), dtype, 256)
    array.create()[...] = np.concatenate([block, block[:44]])
    found = array.read_chunk(0)
    np.testing.assert_array_equal(found, block)
    assert found.dtype == block.dtype
    assert array.sizes() == dict.fromkeys(range(2), block.nbytes + 4)
    assert array.metadata_damage() is None
    assert array.read_chunk(2) is None
    assert ZarrArray(array.folder, (300, 4), dtype, 256).read_chunk(0) is None
