"""Disks that are really full, or refuse: errors from fsync at every point, no permission.

EIO and ENOSPC come from a patched `os.fsync`, write errors proper from a small disk and from files
that may not grow. Permissions are real ones, met by a child process that has become another user
where the tests run as root.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from agiqa.core.errors import AgiqaError
from agiqa.store import Shelf, read_pack, write_pack
from agiqa.store.ledger import segments
from agiqa.store.upkeep.verification import check_pack
from kit.stored_rows import make_ids, make_vectors

FILES_THAT_MAY_NOT_GROW = """
import resource, sys
from pathlib import Path
from kit.stored_rows import add_rows, make_ids, make_vectors
from agiqa.core.errors import AgiqaError
from agiqa.store import Shelf, write_pack
from agiqa.store.upkeep.verification import check_pack

root = Path(sys.argv[1])
ids, vectors = make_ids(2000), make_vectors(2000, 512)
packs = [root / "old.zarr", root / "old.h5"]
for path in packs:
    write_pack(path, "nano", ["a"], [{}], ids[:50], vectors[:50, None])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
shelf = Shelf.open(root / "ledger", {}, 512)
promised = 0
try:
    with shelf.writer() as writer:
        for start, stop in ((0, 100), (100, 200), (200, 500)):
            writer.add(ids[start:stop], vectors[start:stop])
            writer.flush()
            promised = stop
except AgiqaError as error:
    print(error)
assert promised == 200
shelf = Shelf.open(root / "ledger", {}, 512)
assert (shelf.read(ids[:promised]) == vectors[:promised]).all()
for path in packs:
    try:
        write_pack(path, "nano", ["a"], [{}], ids, vectors[:, None])
        raise SystemExit("a pack was written all the same")
    except AgiqaError as error:
        print(error)
    assert check_pack(path).is_whole
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
add_rows(shelf, ids, vectors)
assert (shelf.read(ids) == vectors).all()
"""


def test_a_full_disk(tmp_path: Path, on_small_disk: Callable, count: Callable) -> None:
    done = on_small_disk("fill_the_disk.py", tmp_path, "4m")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for line in found["lines"]:
        assert "No space left on device; free some space and run the same command again" in line
        assert "\n" not in line
    counts = found["counts"]
    count(**counts, acknowledged_rows_lost=0, packs_lost=0)
    assert counts["full while adding"] >= 10
    assert counts["full while packing"] >= 20


def test_files_that_may_not_grow(tmp_path: Path, run_python: Callable) -> None:
    done = run_python("-c", FILES_THAT_MAY_NOT_GROW, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("File too large; check the disk") == 3
    assert len(done.stdout.splitlines()) == 3


FINGERPRINT = {"extractor": "nano", "prompt": "Describe the image."}
WIDTH = 64  # as in worker.py
NOBODY = 65534
IDS, VECTORS = make_ids(600), make_vectors(600, WIDTH)


@contextmanager
def fsync_fails(monkeypatch: pytest.MonkeyPatch, code: int, failing: int) -> Iterator[None]:
    """From the n-th call on: the disk stays as it is."""
    real, calls = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls >= failing:
            raise OSError(code, os.strerror(code))
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        yield


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("by", ["flush", "size"])
def test_fsync_that_fails_while_rows_are_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: Callable, code: int, by: str
) -> None:
    """Flushed each time, or since the segment is full."""
    monkeypatch.setattr(segments, "ROWS_A_SEGMENT", 50 if by == "size" else 4096)
    acknowledged_in_all = 0
    for failing in range(1, 13):
        root = tmp_path / str(failing)
        shelf = Shelf.open(root, FINGERPRINT, WIDTH)
        reader = Shelf.open(root, FINGERPRINT, WIDTH)
        with shelf.writer() as writer:
            writer.add(IDS[:100], VECTORS[:100])
            writer.flush()
            with fsync_fails(monkeypatch, code, failing):
                with pytest.raises(AgiqaError, match=os.strerror(code)) as caught:  # noqa: PT012
                    for start in range(100, 600, 50):
                        acknowledged = reader.ids()
                        writer.add(IDS[start : start + 50], VECTORS[start : start + 50])
                        if by == "flush":
                            writer.flush()
                assert "\n" not in str(caught.value)
                assert reader.ids() >= acknowledged >= frozenset(IDS[:100])
                kept = [row for row, image_id in enumerate(IDS) if image_id in acknowledged]
                np.testing.assert_array_equal(reader.read([IDS[r] for r in kept]), VECTORS[kept])
                acknowledged_in_all += len(kept)
            writer.add(IDS, VECTORS)  # the disk is well again
        again = Shelf.open(root, FINGERPRINT, WIDTH)
        np.testing.assert_array_equal(again.read(IDS), VECTORS)
    count(trials=12, rows_acknowledged=acknowledged_in_all, acknowledged_rows_lost=0)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_fsync_that_fails_while_a_pack_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: Callable, code: int, suffix: str
) -> None:
    path, lines = tmp_path / f"a{suffix}", []
    write_pack(path, "nano", ["a"], [{}], IDS, VECTORS[:, None])
    for failing in range(1, 30):
        with fsync_fails(monkeypatch, code, failing):
            try:
                write_pack(path, "nano", ["a"], [{}], IDS[:300], VECTORS[:300, None])
                break
            except AgiqaError as error:
                lines.append(str(error))
        assert check_pack(path).rows in (600, 300)  # 300: the last fsync is of the name's folder
        np.testing.assert_array_equal(read_pack(path).vectors[:300, 0], VECTORS[:300])
        assert list(tmp_path.iterdir()) == [path]
    assert check_pack(path).rows == 300
    assert check_pack(path).is_whole
    assert len(lines) >= 3
    for line in lines:
        assert f"{os.strerror(code)}; " in line
        assert "\n" not in line
    count(trials=len(lines), torn_packs=0)


def test_a_disk_still_full_at_the_end_keeps_the_first_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = Shelf.open(tmp_path, FINGERPRINT, WIDTH)
    with (  # noqa: PT012
        fsync_fails(monkeypatch, errno.ENOSPC, 1),
        pytest.raises(ZeroDivisionError),
        shelf.writer() as writer,
    ):
        writer.add(IDS[:3], VECTORS[:3])
        raise ZeroDivisionError
    assert "No space left on device; free some space" in caplog.text
    with shelf.writer():
        pass
    assert shelf.ids() == frozenset()


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A folder with a shelf and packs, all of which somebody else may read and not write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Shelf.open(folder / "ledger", FINGERPRINT, WIDTH).writer() as writer:
            writer.add(IDS, VECTORS)
        for suffix in (".zarr", ".h5"):
            write_pack(folder / f"a{suffix}", "nano", ["a"], [{}], IDS, VECTORS[:, None])
        _allow(folder, 0o555, 0o444)
        yield folder
        _allow(folder, 0o755, 0o644)


def _allow(folder: Path, folders: int, files: int) -> None:
    for path in [*folder.rglob("*"), folder]:
        path.chmod(folders if path.is_dir() else files)


def test_a_read_only_store(foreign: Path, worker: Callable, count: Callable) -> None:
    user = NOBODY if os.getuid() == 0 else os.getuid()
    reading = [
        ("read", foreign / "ledger"),
        ("read pack", foreign / "a.zarr"),
        ("check pack", foreign / "a.h5"),
    ]
    writing = [
        ("write", foreign / "ledger"),
        ("write", foreign / "new"),
        ("pack", foreign / "a.zarr"),
        ("pack", foreign / "a.h5"),
    ]
    calls = [(name, str(path)) for name, path in [*reading, *writing]]
    said = worker.run("try_as", user, calls)
    assert said[: len(reading)] == [None] * len(reading)
    for (_, path), line in zip(writing, said[len(reading) :], strict=True):
        assert f"{path}" in line
        assert "Permission denied; make the folder accessible or choose another one" in line
        assert "\n" not in line
    count(reads=len(reading), writes_refused_in_one_line=len(writing))


def test_what_may_not_be_read_is_not_taken_for_damage(foreign: Path, worker: Callable) -> None:
    """Else a repair would drop rows that were paid for."""
    user = NOBODY if os.getuid() == 0 else os.getuid()
    if user == NOBODY:
        for path in [*foreign.rglob("*"), foreign]:
            os.chown(path, NOBODY, NOBODY)
    _allow(foreign, 0o755, 0o644)
    hidden = [
        next((foreign / "ledger").rglob("*.safetensors")),
        foreign / "a.zarr" / "vectors" / "c.1.0.0",
        foreign / "a.h5",
    ]
    for path in hidden:
        path.chmod(0o000)
    ledger = str(foreign / "ledger")
    calls = [
        ("read", ledger),
        ("check", ledger),
        ("repair", ledger),
        ("read pack", str(foreign / "a.zarr")),
        ("check pack", str(foreign / "a.h5")),
    ]
    for line in worker.run("try_as", user, calls):
        assert "Permission denied; make the folder accessible" in line
        assert "damage" not in line
    for path in hidden:
        path.chmod(0o644)
    np.testing.assert_array_equal(
        Shelf.open(foreign / "ledger", FINGERPRINT, WIDTH).read(IDS), VECTORS
    )
    shutil.rmtree(foreign / "a.zarr")
