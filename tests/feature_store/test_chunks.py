from pathlib import Path

import numpy as np
import pytest
from zarr.storage import LocalStore

from agiqa.feature_store.chunks import DTYPES, create_array, open_array, write_chunk


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_chunk_has_the_bytes_that_zarr_would_write(tmp_path: Path, dtype: str) -> None:
    block = np.random.default_rng(0).standard_normal((256, 24)).astype(dtype)
    for name in ("ours", "zarrs"):
        create_array(tmp_path / name, (1024, 24), DTYPES[dtype], fill_value=float("nan"))
    write_chunk(tmp_path / "ours", 2, block)
    open_array(LocalStore(tmp_path / "zarrs"), mode="r+")[512:768] = block
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
