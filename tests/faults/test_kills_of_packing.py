"""SIGKILL at random moments while a pack is replaced: the old one or the new one, to the byte."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agiqa.store import durable, read_pack, write_pack
from kit.stored_rows import files, make_ids, make_vectors

TRIALS, VERSIONS = 100, 4  # versions as in worker.py


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
        for _ in range(TRIALS):
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
    left = time.time() - 2 * durable.STALE_SECONDS
    asides = list(path.parent.glob(f".nano{suffix}.*.partial"))
    for aside in asides:
        os.utime(aside, (left, left))
    write_pack(path, "nano", ["a"], [{}], make_ids(1), make_vectors(1, 1, 8))
    assert list(path.parent.glob(".nano*")) == []  # what the killed ones left is gone
    count(
        moments=TRIALS,
        failed_to_open=0,
        packs_written=safe + 1,
        left_aside_and_removed=len(asides),
        torn_packs=torn,
        acknowledged_packs_lost=lost,
    )
    assert (torn, lost) == (0, 0)
    assert safe > 10
