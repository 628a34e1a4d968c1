"""SIGKILL at random moments while rows are added, a shelf is repaired, a pack is replaced."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest

from agiqa.store import Shelf, read_pack, write_pack
from agiqa.store.files import STALE_SECONDS
from agiqa.store.upkeep.stores import orphans_of_shelf
from agiqa.store.upkeep.verification import check_shelf
from kit.stored_rows import files, make_ids, make_vectors

FINGERPRINT = {"extractor": "nano", "prompt": "Describe the image."}
ROWS, WIDTH, BATCH = 1200, 64, 16  # as in worker.py
TRIALS = 60

IDS, VECTORS = make_ids(ROWS), make_vectors(ROWS, WIDTH)


def promised(folder: Path, rank: int, world: int) -> list[str]:
    """The image ids that a writer said are safe."""
    path = folder / f"acknowledged-{rank}"
    try:
        lines = path.read_text().split("\n")[:-1]
    except FileNotFoundError:
        lines = []
    return IDS[rank::world][: int(lines[-1]) if lines else 0]


def all_promised(folder: Path, writers: int) -> list[str]:
    return [name for rank in range(writers) for name in promised(folder, rank, writers)]


@pytest.mark.timeout(600)  # many kills; a busy disk takes its time
@pytest.mark.parametrize("writers", [1, 2])
def test_sigkill_while_rows_are_added(
    tmp_path: Path, open_worker: Callable, count: Callable, writers: int
) -> None:
    moments = random.Random(writers)
    row_of = {image_id: row for row, image_id in enumerate(IDS)}
    acknowledged = torn = lost = shelves = kills = trials = 0
    with ExitStack() as stack:
        workers = [stack.enter_context(open_worker()) for _ in range(writers)]
        folder = tmp_path / "0"
        while trials < TRIALS:
            folder.mkdir(exist_ok=True)
            # So many rows later, not so many seconds: a busy machine is to get as far as others.
            later = moments.randrange(12) * BATCH
            wanted = min(len(all_promised(folder, writers)) + later, ROWS)
            pids = [
                worker.start("extract", str(folder), rank, writers)
                for rank, worker in enumerate(workers)
            ]
            for worker in workers:  # one killed before its last promise has nothing more to promise
                worker.until(lambda: len(all_promised(folder, writers)) >= wanted)  # noqa: B023
            time.sleep(moments.uniform(0.0, 0.02))
            for pid in moments.sample(pids, writers):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            ended = [worker.wait() for worker in workers]
            assert set(ended) <= {0, -signal.SIGKILL}  # 0: it was just ready
            kills += ended.count(-signal.SIGKILL)
            trials += -signal.SIGKILL in ended

            shelf = Shelf.open(folder / "ledger", FINGERPRINT, WIDTH)
            found = sorted(shelf.ids(), key=row_of.__getitem__)
            vectors = shelf.read(found)  # raises for a row that fails its checksum
            expected = VECTORS[[row_of[image_id] for image_id in found]]
            torn += int((vectors.view("u2") != expected.view("u2")).any(axis=1).sum())
            safe = all_promised(folder, writers)
            lost += len(set(safe).difference(found))
            if len(found) == ROWS:
                assert check_shelf(shelf.folder).is_whole
                acknowledged, shelves = acknowledged + ROWS, shelves + 1
                folder = tmp_path / str(shelves)
        acknowledged += len(safe) if len(found) < ROWS else 0
        folder.mkdir(exist_ok=True)
        for rank, worker in enumerate(workers):
            worker.run("extract", str(folder), rank, writers)
    shelf = Shelf.open(folder / "ledger", FINGERPRINT, WIDTH)
    shelf.merge()
    assert check_shelf(shelf.folder).is_whole
    np.testing.assert_array_equal(shelf.read(IDS), VECTORS)
    count(
        moments=trials,
        processes_killed=kills,
        failed_to_open=0,
        shelves=shelves + 1,
        rows_acknowledged=acknowledged,
        torn_rows=torn,
        acknowledged_rows_lost=lost,
    )
    assert (torn, lost) == (0, 0)
    assert acknowledged > ROWS


HOSTS, ROUNDS = 2, 60


def test_hosts_whose_locks_lie_write_merge_and_are_killed(
    tmp_path: Path, open_worker: Callable, count: Callable
) -> None:
    """Two hosts on one folder (NFS, say), each sure to be alone, merging and freeing at once."""
    moments, kills, lost, wrong, rows = random.Random(5), 0, 0, 0, 0
    promises = [tmp_path / f"acknowledged-{host}" for host in range(HOSTS)]

    def safe() -> set[str]:
        lines = [line for path in promises if path.exists()
                 for line in path.read_text().split("\n")[:-1]]  # fmt: skip
        return {name for line in lines for name in IDS[slice(*map(int, line.split()))]}

    with ExitStack() as stack:
        hosts = [stack.enter_context(open_worker()) for _ in range(HOSTS)]
        for turn in range(ROUNDS):
            before = len(safe())
            pids = [
                worker.start("extract_without_locks", str(tmp_path), host, 1000 * host + turn)
                for host, worker in enumerate(hosts)
            ]
            for worker in hosts:
                worker.until(lambda: len(safe()) > min(before, ROWS - 9))  # noqa: B023
            time.sleep(moments.uniform(0.0, 0.05))
            for pid in moments.sample(pids, HOSTS):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            kills += [worker.wait() for worker in hosts].count(-signal.SIGKILL)
            shelf = Shelf.at(next((tmp_path / "ledger").glob("nano-*")))
            there = sorted(shelf.ids())
            lost += len(safe().difference(there))
            found, damaged = shelf.refreshed().read(there)
            expected = VECTORS[[IDS.index(name) for name in there]]
            wrong += int((found.view("u2") != expected.view("u2")).any(axis=1).sum())
            assert damaged == []
            rows = len(there)
    assert check_shelf(shelf.folder).is_whole
    assert kills > ROUNDS
    count(kills=kills, rows_acknowledged=rows, wrong_rows=wrong, acknowledged_rows_lost=lost)
    assert (wrong, lost) == (0, 0)


MANY, KILLS = 5000, 10


def damage(shelf: Shelf, ids: list[str], vectors: np.ndarray, places: random.Random) -> set[int]:
    """One bit in each of ten rows, a segment restored that was merged away; the rows lost by it."""
    lost = set(places.sample(range(100, MANY), 10))
    segments = [path for path in (shelf.folder / "segments").iterdir() if path.stat().st_size]
    for path in segments:
        data = bytearray(path.read_bytes())
        count = int(path.name.split("-")[1].split(".")[0])
        keys = data[-32 * count :]
        for row in lost:
            if (at := keys.find(bytes.fromhex(ids[row]))) >= 0:
                data[len(data) - count * (WIDTH * 2 + 32) + at // 32 * WIDTH * 2] ^= 1
        path.write_bytes(data)
    shelf.rows.add(ids[:100], vectors[:100])
    left = shelf.folder / "segments" / ".killed.partial"
    left.write_bytes(b"half a segment")
    os.utime(left, (0, 0))
    return lost


def test_sigkill_at_random_moments_of_a_repair(
    tmp_path: Path, open_worker: Callable, count: Callable
) -> None:
    """It loses no row that it could have saved, and can be run again."""
    ids, vectors = make_ids(MANY), make_vectors(MANY, WIDTH)
    whole = Shelf.open(tmp_path / "whole", FINGERPRINT, WIDTH)
    with whole.writer() as writer:
        for start in range(0, MANY, 250):
            writer.add(ids[start : start + 250], vectors[start : start + 250])
            writer.flush()
    moments, unfinished = random.Random(2), 0
    ledger = tmp_path / "ledger"
    with open_worker() as mending:
        for _ in range(KILLS):
            shutil.rmtree(ledger, ignore_errors=True)
            shutil.copytree(tmp_path / "whole", ledger)
            shelf = Shelf.open(ledger, FINGERPRINT, WIDTH)
            lost = damage(shelf, ids, vectors, moments)
            pid = mending.start("mend", str(ledger))
            mending.until((ledger / "started").exists)
            time.sleep(moments.uniform(0.0, 0.1))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            status = mending.wait()
            unfinished += status != 0
            kept = [row for row in range(MANY) if row not in lost]
            names = [ids[row] for row in kept]
            np.testing.assert_array_equal(Shelf.at(shelf.folder).read(names), vectors[kept])
            (ledger / "started").unlink()
            mending.start("mend", str(ledger))
            assert mending.wait() == 0
            assert check_shelf(shelf.folder).is_whole
            again = Shelf.at(shelf.folder)
            assert again.ids() == frozenset(names)
            np.testing.assert_array_equal(again.read(names), vectors[kept])
            assert orphans_of_shelf(shelf.folder) == ([], [])
    assert unfinished >= KILLS // 4  # else the kills came too late to say anything
    count(trials=KILLS, killed_in_the_middle=unfinished, rows_lost_that_were_whole=0)


PACKINGS, VERSIONS = 100, 4  # versions as in worker.py


def safe_packs(promises: Path) -> int:
    """The number of the last pack that the writer said is safe; -1: none."""
    try:
        lines = promises.read_text().split("\n")[:-1]
    except FileNotFoundError:
        lines = []
    return int(lines[-1]) if lines else -1


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_sigkill_while_a_pack_is_replaced(
    tmp_path: Path, suffix: str, open_worker: Callable, count: Callable
) -> None:
    """The old one is there or the new one, to the byte."""
    undisturbed = []
    for version in range(VERSIONS):
        path = tmp_path / f"undisturbed-{version}{suffix}"
        vectors = make_vectors(600, 2, 64, seed=version)
        write_pack(path, "nano", ["a", "b"], [{"version": version}] * 2, make_ids(600), vectors)
        undisturbed.append(files(path))
    moments = random.Random(11)
    path, promises = tmp_path / "packs" / f"nano{suffix}", tmp_path / "packs" / "packed"
    path.parent.mkdir()
    torn = lost = safe = 0
    last = -1
    with open_worker() as worker:
        for _ in range(PACKINGS):
            pid = worker.start("pack_forever", str(path), last + 1)
            wanted = last + moments.randrange(3)  # packs later, however busy the machine is
            worker.until(lambda: safe_packs(promises) >= wanted)  # noqa: B023
            time.sleep(moments.uniform(0.0, 0.05))
            os.kill(pid, signal.SIGKILL)
            assert worker.wait() == -signal.SIGKILL
            safe = safe_packs(promises)
            if not path.exists():
                assert safe == -1  # none was ever promised
                continue
            found = files(path)
            version = read_pack(path).fingerprints[0]["version"]
            torn += found != undisturbed[version]
            lost += version not in {safe % VERSIONS, (safe + 1) % VERSIONS}
            last = safe
    left = time.time() - 2 * STALE_SECONDS
    asides = list(path.parent.glob(f".nano{suffix}.*.partial"))
    for aside in asides:
        os.utime(aside, (left, left))
    write_pack(path, "nano", ["a"], [{}], make_ids(1), make_vectors(1, 1, 8))
    assert list(path.parent.glob(".nano*")) == []  # what the killed ones left is gone
    count(
        moments=PACKINGS,
        failed_to_open=0,
        packs_written=safe + 1,
        left_aside_and_removed=len(asides),
        torn_packs=torn,
        acknowledged_packs_lost=lost,
    )
    assert (torn, lost) == (0, 0)
    assert safe > 10
