"""Packs in both formats: what is written comes back, whatever is damaged is named."""

import json
import pickle
import subprocess
import tempfile
import time
from pathlib import Path

import h5py
import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agiqa.core.errors import AgiqaError
from agiqa.store import PackError, open_pack, read_pack, write_pack
from agiqa.store.packs import pack_layout
from agiqa.store.packs.pack import read_pack_metadata
from agiqa.store.packs.pack_layout import is_name
from agiqa.store.upkeep.verification import check_pack
from kit.stored_rows import Planted, files, make_ids, make_vectors

NAMES = ["quality", "é"]
FINGERPRINTS = [{"extractor": "é", "prompt": name, "scale": 0.00392156862745098} for name in NAMES]
ROWS, WIDTH = 600, 16  # three chunks


@pytest.fixture(params=[".zarr", ".h5"])
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(path: Path, ids: list[str], vectors: np.ndarray) -> Path:
    write_pack(path, "nano", NAMES, FINGERPRINTS, ids, vectors)
    return path


@pytest.fixture
def pack(tmp_path: Path, suffix: str) -> Path:
    return write(tmp_path / f"nano{suffix}", make_ids(ROWS), make_vectors(ROWS, 2, WIDTH))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("rows", [1, 256, 600])
def test_a_pack_comes_back_whole(tmp_path: Path, suffix: str, dtype: str, rows: int) -> None:
    ids, vectors = make_ids(rows), make_vectors(rows, 2, WIDTH, dtype=dtype)
    path = write(tmp_path / "new folder" / f"nano{suffix}", ids, vectors)
    store = read_pack(path)
    assert (store.path, store.extractor, store.names) == (path, "nano", tuple(NAMES))
    assert store.fingerprints == tuple(FINGERPRINTS)
    assert store.image_ids == tuple(ids)
    assert store.vectors.dtype == dtype
    np.testing.assert_array_equal(store.vectors, vectors)
    assert sorted(path.parent.iterdir()) == [path]  # nothing beside it


def test_rows_come_in_the_order_asked_for(pack: Path) -> None:
    ids, vectors = make_ids(ROWS), make_vectors(ROWS, 2, WIDTH)
    store = read_pack(pack)
    chosen = store.rows([ids[5], ids[599], ids[5]])
    np.testing.assert_array_equal(chosen, vectors[[5, 599, 5]])
    chosen[:] = 0  # a copy
    np.testing.assert_array_equal(store.rows(ids), vectors)
    assert store.rows([]).shape == (0, 2, WIDTH)
    stranger = make_ids(2, "other")
    with pytest.raises(
        AgiqaError, match=rf"for 3 images, found 1 \(first missing: {stranger[0]}\); run `agiqa"
    ):
        store.rows([stranger[0], ids[0], stranger[1]])


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path, pack: Path, suffix: str) -> None:
    first = files(pack)
    reordered = [dict(reversed(fingerprint.items())) for fingerprint in FINGERPRINTS]
    again = tmp_path / "elsewhere" / f"other{suffix}"
    vectors = np.asfortranarray(make_vectors(ROWS, 2, WIDTH)).astype(">f2").astype("<f2")
    if suffix == ".h5":
        time.sleep(1.1)  # HDF5 would keep times in seconds
    write_pack(again, "nano", tuple(NAMES), reordered, tuple(make_ids(ROWS)), vectors)
    assert files(again) == first
    write(pack, make_ids(ROWS), make_vectors(ROWS, 2, WIDTH))
    assert files(pack) == first


def test_plain_libraries_read_it(pack: Path, suffix: str) -> None:
    if suffix == ".zarr":
        group = zarr.open(pack, mode="r")
        metadata = group.attrs
        found = {name: group[name][...] for name in ("vectors", "image_id", "row_crc32")}
        assert group["vectors"].chunks == (256, 2, WIDTH)
    else:
        with h5py.File(pack) as file:
            metadata = json.loads(file["metadata"][...].tobytes())
            found = {name: file[name][...] for name in ("vectors", "image_id", "row_crc32")}
            assert file.attrs["format"] == "agiqa-pack"
            assert file["vectors"].chunks == (256, 2, WIDTH)
            assert file["vectors"].fletcher32
    assert metadata["format"] == "agiqa-pack"
    assert metadata["layout"] == 1
    assert metadata["names"] == NAMES
    assert metadata["fingerprints"] == FINGERPRINTS
    np.testing.assert_array_equal(found["vectors"], make_vectors(ROWS, 2, WIDTH))
    assert [row.tobytes().hex() for row in found["image_id"]] == make_ids(ROWS)


@pytest.mark.parametrize("damage", ["missing", "zero bytes", "truncated", "flipped"])
def test_a_damaged_chunk_is_never_read_as_data(pack: Path, suffix: str, damage: str) -> None:
    chunk = pack / "vectors" / "c.1.0.0" if suffix == ".zarr" else pack
    data = bytearray(chunk.read_bytes())
    place = data.find(make_vectors(ROWS, 2, WIDTH)[300].tobytes())
    assert place >= 0
    if damage == "missing" and suffix == ".zarr":
        chunk.unlink()
    elif damage == "missing":
        with h5py.File(pack, "r+") as file:
            crc32 = file["row_crc32"][...]
            del file["row_crc32"]
            file["row_crc32"] = crc32
            del file["vectors"]
            file.create_dataset("vectors", (ROWS, 2, WIDTH), "<f2", chunks=(256, 2, WIDTH))
    elif damage == "flipped":
        data[place] ^= 1
        chunk.write_bytes(data)
    else:
        chunk.write_bytes(data[: len(data) // 2 if damage == "truncated" else 0])
    with pytest.raises(AgiqaError, match=r"expected .*whole|expected an HDF5 pack") as caught:
        read_pack(pack)
    assert "\n" not in str(caught.value)


def test_absent_foreign_and_newer_stores_are_one_clear_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"nano{suffix}"
    with pytest.raises(PackError, match="expected a pack, found nothing; run `agiqa extract`"):
        read_pack(path)
    make_foreign(path, {})
    with pytest.raises(PackError, match="expected a pack of agiqa, found data of another program"):
        read_pack(path)
    with pytest.raises(PackError, match=r"not overwritten: .* another program"):
        write(path, ["0" * 64], np.ones((1, 2, 3), "float16"))
    make_foreign(path, {"format": "agiqa-pack", "layout": 2})
    with pytest.raises(PackError, match="expected pack layout 1, found 2; upgrade agiqa"):
        read_pack(path)


def make_foreign(path: Path, attributes: dict[str, object]) -> None:
    if path.suffix == ".zarr":
        zarr.open_group(path, mode="w", attributes=attributes)
        return
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        text = np.frombuffer(json.dumps(attributes).encode(), np.uint8)
        file.create_dataset("metadata", data=text, chunks=text.shape, fletcher32=True)


def test_inputs_that_do_not_fit_are_refused(tmp_path: Path, suffix: str) -> None:
    path, ids, vectors = tmp_path / f"nano{suffix}", make_ids(3), make_vectors(3, 2, 4)
    infinite = vectors.copy()
    infinite[2, 1, 0] = np.inf
    for bad_ids, bad, message in [
        (ids, infinite, f"NaN or infinity for image {ids[2]}"),
        (ids, vectors[:, 0], r"found shape \(3, 4\)"),
        (ids, vectors[:, :1], r"shape \(3, 2, 4\), found \(3, 1, 4\)"),
        (ids, vectors[:2], r"shape \(3, 2, 4\), found \(2, 2, 4\)"),
        (ids, vectors.astype("float64"), "float16 or float32, found .* float64"),
        ([ids[0], ids[1], ids[0]], vectors, "found 3 of which 2 differ"),
        ([], vectors[:0], "found 0"),
        (["a", "b", "c"], vectors, "sha256 in hex .* found 'a'"),
    ]:
        with pytest.raises(AgiqaError, match=message):
            write(path, bad_ids, bad)
    with pytest.raises(AgiqaError, match="found 1 fingerprints for the names a, a"):
        write_pack(path, "nano", ["a", "a"], FINGERPRINTS[:1], ids, vectors)
    assert list(tmp_path.iterdir()) == []


def test_replacing_a_pack_works_without_the_atomic_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agiqa.store.files._exchange", lambda a, b: False)
    path = tmp_path / "nano.zarr"
    for seed in (0, 1):
        write(path, make_ids(5), make_vectors(5, 2, 4, seed=seed))
    np.testing.assert_array_equal(read_pack(path).vectors, make_vectors(5, 2, 4, seed=1))
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_never_written_through(
    tmp_path: Path, pack: Path, suffix: str
) -> None:
    link = tmp_path / f"link{suffix}"  # as DVC may check a pack out of its own cache
    link.symlink_to(pack)
    before = files(pack)
    write(link, make_ids(3), make_vectors(3, 2, WIDTH))
    assert files(pack) == before
    assert not link.is_symlink()
    assert len(read_pack(link).image_ids) == 3


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([".zarr", ".h5"]),
    hnp.array_shapes(min_dims=3, max_dims=3, max_side=5),
    st.data(),
)
def test_any_pack_comes_back(suffix: str, shape: tuple[int, int, int], data: st.DataObject) -> None:
    bits = st.integers(0x0000, 0x7BFF) | st.integers(0x8000, 0xFBFF)  # every finite float16
    vectors = data.draw(hnp.arrays(np.uint16, shape, elements=bits)).view(np.float16)
    names = data.draw(
        st.lists(st.text().filter(is_name), min_size=shape[1], max_size=shape[1], unique=True)
    )
    fingerprints = [{"prompt": name} for name in names]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"pack{suffix}"
        write_pack(path, "é", names, fingerprints, make_ids(shape[0]), vectors)
        store = read_pack(path)
    assert store.vectors.tobytes() == vectors.tobytes()
    assert store.names == tuple(names)
    assert store.fingerprints == tuple(fingerprints)
    assert (store.extractor, store.image_ids) == ("é", tuple(make_ids(shape[0])))


FAIL_IN_THE_MIDDLE = """
import os, resource, sys
from pathlib import Path
from kit.stored_rows import make_ids, make_vectors
from agiqa.store import write_pack
from agiqa.core.errors import AgiqaError

path, ids, vectors = Path(sys.argv[1]), make_ids(2000), make_vectors(2000, 1, 512)
os.posix_fallocate = lambda *_: None  # as where reserved space proves to be none
for limit in range(2_000, 2_100_000, 100_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write_pack(path, "nano", ["a"], [{}], ids, vectors)
        print("written", limit)
    except AgiqaError as error:
        print(error)
"""


def test_hdf5_outlives_a_write_that_fails_at_any_place(tmp_path: Path, python: list[str]) -> None:
    command = [*python, "-c", FAIL_IN_THE_MIDDLE, str(tmp_path / "nano.h5")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 21
    assert all("found: File too large; check the disk" in line for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_a_large_pack_is_written_and_read_in_blocks(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, vectors = make_ids(2_000), make_vectors(2_000, 2, WIDTH)
    write(tmp_path / f"whole{suffix}", ids, vectors)
    monkeypatch.setattr(pack_layout, "BLOCK_BYTES", 1)

    class Given:
        shape, dtype = vectors.shape, vectors.dtype
        most = 0

        def __getitem__(self, rows: slice) -> np.ndarray:
            self.most = max(self.most, rows.stop - rows.start)
            return vectors[rows]

    given = Given()
    write_pack(tmp_path / f"blocks{suffix}", "nano", NAMES, FINGERPRINTS, ids, given)
    assert given.most == 256
    assert files(tmp_path / f"blocks{suffix}") == files(tmp_path / f"whole{suffix}")
    np.testing.assert_array_equal(read_pack(tmp_path / f"blocks{suffix}").vectors, vectors)


@pytest.mark.parametrize("suffix", [".zarr"])
def test_a_pickle_posing_as_chunks_runs_nothing(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An array of Zarr v2 may name pickle as its codec; some versions of numcodecs obey."""
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    array = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "order": "C"}
    array |= {"compressor": None, "fill_value": None}
    array["filters"] = [{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 5}]
    (pack / "vectors/zarr.json").unlink()
    (pack / "vectors/.zarray").write_text(json.dumps(array))
    (pack / "vectors/0").write_bytes(pickle.dumps(Planted(tmp_path / "ran")))
    with pytest.raises(
        PackError, match=r"expected a whole pack, found that vectors/zarr.json is m"
    ):
        read_pack(pack)
    assert not (tmp_path / "ran").exists()


def test_a_whole_pack(pack: Path) -> None:
    report = check_pack(pack)
    assert report.is_whole
    assert (report.rows, report.chunks) == (ROWS, 3)
    assert report.size == sum(map(len, files(pack).values()))
    assert open_pack(pack).image_ids == tuple(make_ids(ROWS))
    assert read_pack_metadata(pack)["names"] == NAMES


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


@pytest.mark.parametrize("suffix", [".zarr"])
@pytest.mark.parametrize("name", ["vectors/c.1.0.0", "image_id/c.0.0", "row_crc32/c.0"])
@pytest.mark.parametrize("content", [None, b"", b"short"])
def test_missing_and_short_chunks_of_zarr(pack: Path, name: str, content: bytes | None) -> None:
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


@pytest.mark.parametrize("suffix", [".zarr"])
@pytest.mark.parametrize("name", ["c.3.0.0", "c.999.0.0", "c.0.1.0", "c.00.0.0", "c.0.0"])
def test_a_chunk_beyond_the_arrays_rows_is_a_stranger(pack: Path, name: str) -> None:
    (pack / "vectors" / name).write_bytes(b"x")
    (finding,) = check_pack(pack).findings
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
