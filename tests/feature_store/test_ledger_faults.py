"""What kills, full disks and damage do to a shelf: nothing acknowledged is lost, nothing torn."""

import errno
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agiqa.errors import AgiqaError
from agiqa.feature_store import DamagedRowsError, Shelf

FINGERPRINT = {"extractor": "nano", "prompt": "Describe the image."}
ROWS, WIDTH = 3000, 64  # as in worker.py
KILLS = 10

Ids = Callable[..., list[str]]
Make = Callable[..., np.ndarray]


def array_files(shelf: Shelf) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (shelf.folder / "vectors").iterdir()}


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_sigkill_at_random_moments_loses_no_acknowledged_row(
    tmp_path: Path, make_ids: Ids, make_vectors: Make, worker: Callable
) -> None:
    ids, vectors = make_ids(ROWS), make_vectors(ROWS, WIDTH)
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    moments = random.Random(7)
    promised = tmp_path / "acknowledged"
    promised.touch()
    with worker("extract", tmp_path) as extraction:
        for _ in range(KILLS):
            before = promised.stat().st_size
            pid = extraction.start()
            wait_for(lambda size=before: promised.stat().st_size > size)
            time.sleep(moments.uniform(0.0, 0.08))
            os.kill(pid, signal.SIGKILL)
            assert extraction.wait() == -signal.SIGKILL

            acknowledged = max(int(line) for line in promised.read_text().split("\n")[:-1])
            shelf = Shelf.open(tmp_path / "ledger", FINGERPRINT, WIDTH)
            found = sorted(shelf.ids(), key=row_of.__getitem__)
            assert set(found) >= set(ids[:acknowledged])
            expected = vectors[[row_of[image_id] for image_id in found]]
            np.testing.assert_array_equal(shelf.read(found), expected)
        extraction.start()
        assert extraction.wait() == 0
    undisturbed = Shelf.open(tmp_path / "undisturbed", FINGERPRINT, WIDTH)
    with undisturbed.writer() as writer:
        writer.add(ids, vectors)
    shelf = Shelf.open(tmp_path / "ledger", FINGERPRINT, WIDTH)
    assert shelf.ids() == frozenset(ids)
    np.testing.assert_array_equal(shelf.read(ids), vectors)
    kept = {name: data for name, data in array_files(shelf).items() if "partial" not in name}
    assert kept == array_files(undisturbed)  # to the bit, whatever happened on the way
    assert shelf._sections[0].journal.next_position == ROWS  # no row was stored twice


@pytest.fixture
def filled(tmp_path: Path, make_ids: Ids, make_vectors: Make) -> Shelf:
    """Four chunks, the last one with 100 rows."""
    shelf = Shelf.open(tmp_path, FINGERPRINT, WIDTH)
    with shelf.writer() as writer:
        writer.add(make_ids(868), make_vectors(868, WIDTH))
    return Shelf.open(tmp_path, FINGERPRINT, WIDTH)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "zero bytes": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "without its checksum": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "one bit": lambda path: path.write_bytes(flip(path.read_bytes(), 5000)),
    "another chunk": lambda path: shutil.copy(path.with_name("c.0.0"), path),
}


def flip(data: bytes, place: int, bit: int = 1) -> bytes:
    return data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("chunk", [1, 3])
def test_damage_is_named_and_can_be_repaired(
    filled: Shelf,
    make_ids: Ids,
    make_vectors: Make,
    damage: str,
    chunk: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ids, vectors = make_ids(868), make_vectors(868, WIDTH)
    DAMAGE[damage](filled.folder / "vectors" / f"c.{chunk}.0")
    bad = ids[chunk * 256 : (chunk + 1) * 256]
    good = [image_id for image_id in ids if image_id not in bad]
    with pytest.raises(DamagedRowsError, match=rf"{len(bad)} damaged .* image {bad[0]}") as caught:
        filled.read(ids)
    assert caught.value.image_ids == tuple(bad)
    assert filled.damaged() == tuple(bad)
    assert len(filled.read(good)) == len(good)
    with caplog.at_level(logging.WARNING):
        filled.repair()
    assert f"{len(bad)} damaged rows dropped" in caplog.text
    assert filled.ids() == frozenset(good)
    with filled.writer() as writer:
        writer.add(ids, vectors)
    np.testing.assert_array_equal(filled.read(ids), vectors)


def test_no_flipped_bit_in_any_file_is_returned_as_data(
    filled: Shelf, tmp_path: Path, make_ids: Ids, make_vectors: Make
) -> None:
    ids, vectors = make_ids(868), make_vectors(868, WIDTH)
    moments = random.Random(3)
    files = [path for path in filled.folder.rglob("*") if path.is_file() and path.stat().st_size]
    refused = 0
    for path in files:
        whole = path.read_bytes()
        for _ in range(20):
            path.write_bytes(flip(whole, moments.randrange(len(whole)), 1 << moments.randrange(8)))
            try:
                shelf = Shelf.open(tmp_path, FINGERPRINT, WIDTH)
                present = [row for row, image_id in enumerate(ids) if image_id in shelf.ids()]
                found = shelf.read([ids[row] for row in present])
            except AgiqaError:
                refused += 1
            else:
                np.testing.assert_array_equal(found, vectors[present])
        path.write_bytes(whole)
    assert refused >= 4 * 20  # every flip in a chunk, and more


def test_a_journal_line_torn_by_a_power_cut_costs_its_own_rows_alone(
    filled: Shelf, tmp_path: Path, make_ids: Ids, make_vectors: Make
) -> None:
    ids, vectors = make_ids(868), make_vectors(868, WIDTH)
    journal = filled.folder / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-30])
    shelf = Shelf.open(tmp_path, FINGERPRINT, WIDTH)
    assert shelf.ids() == frozenset(ids[:768])
    with shelf.writer() as writer:
        writer.add(ids, vectors)
    np.testing.assert_array_equal(Shelf.open(tmp_path, FINGERPRINT, WIDTH).read(ids), vectors)


@pytest.mark.parametrize("failing", range(1, 7))
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_any_fsync_loses_nothing_acknowledged(
    tmp_path: Path,
    make_ids: Ids,
    make_vectors: Make,
    monkeypatch: pytest.MonkeyPatch,
    failing: int,
    code: int,
) -> None:
    ids, vectors = make_ids(600), make_vectors(600, WIDTH)
    shelf = Shelf.open(tmp_path, FINGERPRINT, WIDTH)
    real, calls = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls >= failing:  # and on every later one: the disk stays full
            raise OSError(code, os.strerror(code))
        real(descriptor)

    reader = Shelf.open(tmp_path, FINGERPRINT, WIDTH)
    with shelf.writer() as writer:
        writer.add(ids[:100], vectors[:100])
        writer.flush()
        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(AgiqaError, match=os.strerror(code)) as caught:  # noqa: PT012
            for start in range(100, 600, 50):
                acknowledged = reader.ids()
                writer.add(ids[start : start + 50], vectors[start : start + 50])
                writer.flush()
        assert "\n" not in str(caught.value)
        assert reader.ids() == acknowledged >= frozenset(ids[:100])
        kept = [row for row, image_id in enumerate(ids) if image_id in acknowledged]
        np.testing.assert_array_equal(reader.read([ids[row] for row in kept]), vectors[kept])
        monkeypatch.setattr(os, "fsync", real)
        writer.add(ids, vectors)  # space was freed
    np.testing.assert_array_equal(Shelf.open(tmp_path, FINGERPRINT, WIDTH).read(ids), vectors)


def test_a_disk_still_full_at_the_end_keeps_the_first_failure(
    tmp_path: Path,
    make_ids: Ids,
    make_vectors: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shelf = Shelf.open(tmp_path, FINGERPRINT, WIDTH)
    with pytest.raises(ZeroDivisionError), shelf.writer() as writer:  # noqa: PT012
        writer.add(make_ids(3), make_vectors(3, WIDTH))
        monkeypatch.setattr(os, "fsync", fsync)
        raise ZeroDivisionError
    assert "No space left on device; free some space" in caplog.text
    monkeypatch.undo()
    with shelf.writer():
        pass
    assert shelf.ids() == frozenset()


FILL_THE_DISK = """
import resource, signal, sys
from pathlib import Path
from conftest import make_ids, make_vectors
from agiqa.errors import AgiqaError
from agiqa.feature_store import Shelf, read_pack, write_pack

root = Path(sys.argv[1])
ids, vectors = make_ids(2000), make_vectors(2000, 512)
fingerprint = {"extractor": "nano"}
old = [root / "old.zarr", root / "old.h5"]
for path in old:
    write_pack(path, "nano", ["a"], [fingerprint], ids[:50], vectors[:50, None])
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
shelf = Shelf.open(root / "ledger", fingerprint, 512)
promised = 0
try:
    with shelf.writer() as writer:
        for start in range(0, 2000, 100):
            writer.add(ids[start:start + 100], vectors[start:start + 100])
            writer.flush()
            promised = start + 100
except AgiqaError as error:
    print(error)
shelf = Shelf.open(root / "ledger", fingerprint, 512)
assert promised < 2000
assert shelf.ids() == frozenset(ids[:len(shelf.ids())]) and len(shelf.ids()) >= promised
assert (shelf.read(ids[:promised]) == vectors[:promised]).all()
for path in old:
    try:
        write_pack(path, "nano", ["a"], [fingerprint], ids, vectors[:, None])
        raise SystemExit("a pack was written on a full disk")
    except AgiqaError as error:
        print(error)
    assert (read_pack(path).vectors[:, 0] == vectors[:50]).all()
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    with shelf.writer() as writer:
        writer.add(ids, vectors)
    assert (shelf.read(ids) == vectors).all()
else:
    (root / "ballast").unlink()
    with shelf.writer() as writer:
        writer.add(ids[:700], vectors[:700])
    assert (shelf.read(ids[:700]) == vectors[:700]).all()
"""


def run_here(command: list[str]) -> subprocess.CompletedProcess[str]:
    here = Path(__file__).parent
    return subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=120)


def test_files_that_may_not_grow(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FILL_THE_DISK, str(tmp_path), "200000"]
    done = run_here(command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("File too large; check the disk") == 3
    assert len(done.stdout.splitlines()) == 3


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=2m tmpfs "$1"'
    private = ["unshare", "--map-root-user", "--mount", "sh", "-c"]  # this process's own mounts
    if (
        shutil.which("unshare") is None
        or run_here([*private, mount, "-", str(tmp_path)]).returncode
    ):
        pytest.skip("may not mount a small tmpfs here")
    script = f'{mount} && head -c 1000000 /dev/zero >"$1/ballast" && exec "$2" -c "$3" "$1"'
    done = run_here([*private, script, "-", str(tmp_path), sys.executable, FILL_THE_DISK])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("No space left on device; free some space") == 3
    assert len(done.stdout.splitlines()) == 3


def test_array_metadata_that_does_not_parse_is_one_clear_line(filled: Shelf, make_ids: Ids) -> None:
    path = filled.folder / "vectors" / "zarr.json"
    path.write_text(path.read_text().replace("float16", "float17"))
    with pytest.raises(AgiqaError, match="expected a Zarr v3 array, found damaged metadata"):
        filled.read(make_ids(1))
    with pytest.raises(AgiqaError, match=r"restore its zarr\.json"), filled.writer():
        pass
