"""What plain numpy and safetensors read out of an export."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable, write_table
from agiqa.store import write_pack
from agiqa.store.upkeep.export import export

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
