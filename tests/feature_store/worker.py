"""Jobs for the fault tests, each in a process of its own that the test may kill.

`worker.py JOB FOLDER` imports everything once and forks a child for each line on its input; it
prints the child's process id and, when it has ended, its status.
"""

import itertools
import os
import sys
import time
from pathlib import Path

from agiqa.feature_store import Shelf, write_pack
from agiqa.feature_store.ledger import find_shelves
from agiqa.feature_store.orphans import orphans_of_shelf, remove_orphans
from agiqa.feature_store.shelf_check import repair_shelf
from conftest import make_ids, make_vectors

FINGERPRINT = {"extractor": "nano", "prompt": "Describe the image."}
ROWS, WIDTH, BATCH = 3000, 64, 16


def extract(folder: Path) -> None:
    """Fill a shelf; a line in `acknowledged` says how many rows are safe by our promise."""
    ids, vectors = make_ids(ROWS), make_vectors(ROWS, WIDTH)
    shelf = Shelf.open(folder / "ledger", FINGERPRINT, WIDTH)
    with (folder / "acknowledged").open("a") as acknowledged, shelf.writer() as writer:
        for start in range(0, ROWS, BATCH):
            writer.add(ids[start : start + BATCH], vectors[start : start + BATCH])
            writer.flush()
            print(min(start + BATCH, ROWS), file=acknowledged, flush=True)


def pack_forever(folder: Path) -> None:
    """Replace the packs by others over and over; `started` says that the first are there."""
    ids = make_ids(600)
    for seed in itertools.count():
        for suffix in (".zarr", ".h5"):
            vectors = make_vectors(600, 2, WIDTH, seed=seed % 2)
            fingerprints = [{"seed": seed % 2}] * 2
            write_pack(folder / f"nano{suffix}", "nano", ["a", "b"], fingerprints, ids, vectors)
        (folder / "started").touch()


def hold_the_lock(folder: Path) -> None:
    """Be the writer of the test's shelf until killed."""
    with Shelf.open(folder, FINGERPRINT, 8).writer():
        (folder / "held").touch()
        time.sleep(60)


def mend(folder: Path) -> None:
    """Repair the only shelf under `folder` and free what holds nothing."""
    (shelf,) = find_shelves(folder)
    (folder / "started").touch()
    repair_shelf(shelf)
    remove_orphans(shelf, orphans_of_shelf(shelf)[0])


JOBS = {
    "extract": extract,
    "pack_forever": pack_forever,
    "hold_the_lock": hold_the_lock,
    "mend": mend,
}


def main(job: str, folder: str) -> None:
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            JOBS[job](Path(folder))
            os._exit(0)
        print(child, flush=True)  # noqa: T201
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
