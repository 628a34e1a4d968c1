import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agiqa.store import DamagedRowsError, FeatureStore, read_pack, write_pack
from agiqa.store.packs import mapped

Ids = Callable[..., list[str]]
Make = Callable[..., np.ndarray]

ROWS, WIDTH = 600, 16
both_formats = pytest.mark.parametrize("suffix", [".zarr", ".h5"])


@pytest.fixture
def maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of maps, for packs of any size."""
    monkeypatch.setattr(mapped, "LARGE", 0)
    monkeypatch.setenv("AGIQA_MAPS", str(tmp_path / "maps"))
    return tmp_path / "maps"


@pytest.fixture
def pack(tmp_path: Path, suffix: str, make_ids: Ids, make_vectors: Make) -> Path:
    path = tmp_path / f"nano{suffix}"
    fingerprints = [{"prompt": name} for name in "ab"]
    write_pack(path, "nano", "ab", fingerprints, make_ids(ROWS), make_vectors(ROWS, 2, WIDTH))
    return path


def is_mapped(store: FeatureStore) -> bool:
    base: object = store.vectors
    while base is not None and not isinstance(base, np.memmap):
        base = getattr(base, "base", None)
    return base is not None


def break_chunks(pack: Path) -> None:
    """Damage the vectors of the pack, so that what reads them cannot but notice."""
    for path in [pack] if pack.is_file() else (pack / "vectors").glob("c.*"):
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 1
        path.write_bytes(data)


@both_formats
def test_the_second_reading_is_from_the_map_alone(
    maps: Path, pack: Path, make_ids: Ids, make_vectors: Make
) -> None:
    assert is_mapped(read_pack(pack))
    if pack.suffix == ".zarr":
        break_chunks(pack)
    again = read_pack(pack)
    assert is_mapped(again)
    np.testing.assert_array_equal(again.vectors, make_vectors(ROWS, 2, WIDTH))
    np.testing.assert_array_equal(
        again.rows(make_ids(ROWS)[7:9]), make_vectors(ROWS, 2, WIDTH)[7:9]
    )
    with pytest.raises(ValueError, match="read-only"):
        again.vectors[0] = 0
    assert len(list(maps.iterdir())) == 1


@both_formats
def test_another_pack_at_the_same_path_is_never_served_from_the_old_map(
    maps: Path, pack: Path, make_ids: Ids, make_vectors: Make
) -> None:
    read_pack(pack)
    other = make_vectors(ROWS, 2, WIDTH, seed=1)
    write_pack(pack, "nano", "ab", [{"prompt": name} for name in "ab"], make_ids(ROWS), other)
    np.testing.assert_array_equal(read_pack(pack).vectors, other)


@both_formats
def test_both_formats_of_the_same_vectors_share_a_map(
    maps: Path, pack: Path, tmp_path: Path, make_ids: Ids, make_vectors: Make
) -> None:
    store = read_pack(pack)
    other = tmp_path / ("other.h5" if pack.suffix == ".zarr" else "other.zarr")
    write_pack(other, "nano", store.names, store.fingerprints, store.image_ids, store.vectors)
    np.testing.assert_array_equal(read_pack(other).vectors, store.vectors)
    assert len(list(maps.iterdir())) == 1


@both_formats
@pytest.mark.parametrize("damage", ["flipped", "short", "empty"])
def test_a_damaged_map_is_laid_anew(
    maps: Path, pack: Path, damage: str, make_vectors: Make, caplog: pytest.LogCaptureFixture
) -> None:
    read_pack(pack)
    (path,) = maps.iterdir()
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(20 if damage == "flipped" else 1):
        data = bytearray(whole)
        data[random.integers(len(data))] ^= 1 << int(random.integers(8))
        cut = {"flipped": len(data), "short": len(data) - 5, "empty": 0}[damage]
        path.write_bytes(data[:cut])
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            store = read_pack(pack)
        np.testing.assert_array_equal(store.vectors, make_vectors(ROWS, 2, WIDTH))
        assert "expected a whole memory map, found damage; it is laid anew" in caplog.text
        assert path.read_bytes() == whole


@both_formats
def test_of_a_damaged_pack_no_map_is_laid(maps: Path, pack: Path) -> None:
    if pack.is_dir():
        shutil.rmtree(pack / "vectors")
        (pack / "vectors").mkdir()
        shutil.copy(pack / "zarr.json", pack / "vectors" / "zarr.json")
    else:
        break_chunks(pack)
    with pytest.raises(Exception, match=r"expected .*found") as caught:
        read_pack(pack)
    assert not isinstance(caught.value, DamagedRowsError) or caught.value.image_ids
    assert not maps.exists() or list(maps.iterdir()) == []


@pytest.mark.parametrize("suffix", [".zarr"])
@pytest.mark.parametrize("why", ["a file in the way", "no room"])
def test_without_a_place_for_maps_it_is_read_into_memory(
    maps: Path, pack: Path, why: str, make_vectors: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "no room":
        usage = shutil.disk_usage(pack)._replace(free=1000)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    else:
        maps.write_text("in the way")
    store = read_pack(pack)
    assert not is_mapped(store)
    np.testing.assert_array_equal(store.vectors, make_vectors(ROWS, 2, WIDTH))


@pytest.mark.parametrize("suffix", [".zarr"])
def test_small_packs_need_no_map(pack: Path, tmp_path: Path, maps: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapped, "LARGE", 64 << 20)
        assert not is_mapped(read_pack(pack))
    assert not maps.exists()


@pytest.mark.parametrize("suffix", [".zarr"])
def test_maps_that_nobody_used_for_a_month_go(maps: Path, pack: Path) -> None:
    maps.mkdir()
    old, young = maps / ("0" * 64 + ".vectors"), maps / ("1" * 64 + ".vectors")
    for path, days in ((old, 31), (young, 29)):
        path.write_bytes(b"")
        then = time.time() - days * 86400
        os.utime(path, (then, then))
    read_pack(pack)
    assert not old.exists()
    assert young.exists()
    assert len(list(maps.iterdir())) == 2
