"""Jobs on shelves and packs, each in a process of its own that a test may kill (kit/forking.py).

No torch here: to start is to fork a small process, which has Zarr already.
"""

import contextlib
import itertools
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import zarr  # noqa: F401

from agiqa.core.errors import AgiqaError
from agiqa.store import Shelf, read_pack, write_pack
from agiqa.store.ledger.shelf import find_shelves
from agiqa.store.upkeep.stores import orphans_of_shelf
from agiqa.store.upkeep.verification import check_pack, check_shelf, repair_shelf
from kit.forking import serve
from kit.stored_rows import make_ids, make_vectors

FINGERPRINT = {"extractor": "nano", "prompt": "Describe the image."}
ROWS, WIDTH, BATCH = 1200, 64, 16
VERSIONS = 4  # of the pack that `pack_forever` writes in turn
IDS, VECTORS = make_ids(ROWS), make_vectors(ROWS, WIDTH)
PACKED = [  # what `write_pack` is given for each version, but for the path
    ("nano", ["a", "b"], [{"version": n}] * 2, IDS[:600], make_vectors(600, 2, WIDTH, seed=n))
    for n in range(VERSIONS)
]


def extract(folder: str, rank: int, world: int) -> None:
    """Add what a rank's share lacks; a line in `acknowledged-N` counts rows that are safe."""
    ids, vectors = IDS[rank::world], VECTORS[rank::world]
    shelf = Shelf.open(Path(folder) / "ledger", FINGERPRINT, WIDTH, rank=rank)
    here = shelf.ids()
    done = next((row for row, image_id in enumerate(ids) if image_id not in here), len(ids))
    with (Path(folder) / f"acknowledged-{rank}").open("a") as promises, shelf.writer() as writer:
        for start in range(done, len(ids), BATCH):
            writer.add(ids[start : start + BATCH], vectors[start : start + BATCH])
            writer.flush()
            print(min(start + BATCH, len(ids)), file=promises, flush=True)


def extract_without_locks(folder: str, host: int, seed: int) -> None:
    """As one of several hosts whose `flock` lies: all are rank 0, add what they like, and merge."""
    filelock.FileLock.acquire = lambda *_, **__: None  # "it is yours"
    moments = random.Random(seed)
    shelf = Shelf.open(Path(folder) / "ledger", FINGERPRINT, WIDTH)
    with (Path(folder) / f"acknowledged-{host}").open("a") as promises:
        while True:
            start = moments.randrange(ROWS)
            rows = range(start, min(start + moments.choice((1, 5, BATCH)), ROWS))
            with shelf.writer() as writer:
                writer.add([IDS[row] for row in rows], VECTORS[rows.start : rows.stop])
                writer.flush()
                print(rows.start, rows.stop, file=promises, flush=True)
            if moments.random() < 0.2:
                shelf.merge()
            if moments.random() < 0.05:
                free(shelf.folder)
                repair_shelf(shelf.folder)


def free(shelf: Path) -> None:
    """Remove what holds nothing, of that what another process leaves."""
    for orphan in orphans_of_shelf(shelf)[0]:
        with contextlib.suppress(AgiqaError):
            orphan.remove()


def pack_forever(path: str, first: int) -> None:
    """Replace a pack by the next version over and over; `packed` says which are safe."""
    with Path(path).with_name("packed").open("a") as promises:
        for number in itertools.count(first):
            write_pack(Path(path), *PACKED[number % VERSIONS])
            print(number, file=promises, flush=True)


def hold_the_lock(folder: str) -> None:
    """Be the writer of a shelf until killed."""
    with Shelf.open(Path(folder), FINGERPRINT, 8).writer():
        (Path(folder) / "held").touch()
        time.sleep(60)


def mend(folder: str) -> None:
    """Repair the only shelf under `folder`, free what holds nothing, and merge."""
    (shelf,) = find_shelves(Path(folder))
    (Path(folder) / "started").touch()
    repair_shelf(shelf)
    free(shelf)
    Shelf.at(shelf).merge()


def add_at(folder: str, jumps: list[float]) -> None:
    """Add a row at each of these clocks: seconds by which `time.time` is off."""
    real = time.time
    ids, vectors = make_ids(len(jumps)), make_vectors(len(jumps), 8)
    for row, jump in enumerate(jumps):
        time.time = lambda jump=jump: real() + jump
        with Shelf.open(Path(folder) / "ledger", FINGERPRINT, 8).writer() as writer:
            writer.add(ids[row : row + 1], vectors[row : row + 1])
        write_pack(Path(folder) / "a.zarr", "nano", ["a"], [{}], ids, vectors[:, None])


def try_as(user: int, calls: list[list[Any]]) -> list[str | None]:
    """Do each of the calls as this user; the line that the user would see, or None.

    All of them are done once before, elsewhere, since this user may not read what they import.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name in ("write", "read", "check", "repair"):
            TRIES[name](Path(folder) / "ledger")
        for suffix, name in itertools.product(
            (".zarr", ".h5"), ("pack", "read pack", "check pack")
        ):
            TRIES[name](Path(folder) / f"a{suffix}")
    os.setgid(user)
    os.setuid(user)
    return [_line(TRIES[name], *map(Path, paths)) for name, *paths in calls]


def _line(call: Callable[..., object], *given: Path) -> str | None:
    try:
        call(*given)
    except AgiqaError as error:
        return str(error)
    return None


def _read(root: Path) -> None:
    shelf = Shelf.open(root, FINGERPRINT, WIDTH)
    ids = [image_id for image_id in IDS if image_id in shelf.ids()]
    assert np.array_equal(shelf.read(ids), VECTORS[: len(ids)])
    assert ids
    assert check_shelf(shelf.folder).is_whole


def _write(root: Path) -> None:
    with Shelf.open(root, FINGERPRINT, WIDTH).writer() as writer:
        writer.add(IDS, VECTORS)


TRIES: dict[str, Callable[..., object]] = {
    "read": _read,
    "write": _write,
    "check": lambda root: check_shelf(Shelf.open(root, FINGERPRINT, WIDTH).folder),
    "repair": lambda root: repair_shelf(Shelf.open(root, FINGERPRINT, WIDTH).folder),
    "pack": lambda path: write_pack(path, *PACKED[1]),
    "read pack": read_pack,
    "check pack": check_pack,
}

if __name__ == "__main__":
    serve(extract, extract_without_locks, pack_forever, hold_the_lock, mend, add_at, try_as)
