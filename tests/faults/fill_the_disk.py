"""Run with a small tmpfs as its argument: rows and packs on a disk that is full, then not.

In each trial the disk fills at another place. Prints a JSON object: what was counted, and every
line that a user would have seen.
"""

import json
import os
import random
import shutil
import sys
from pathlib import Path

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.store import Shelf, read_pack, write_pack
from agiqa.store.upkeep.verification import check_pack, check_shelf
from kit.stored_rows import make_ids, make_vectors

FINGERPRINT = {"extractor": "nano"}
TRIALS, ROWS, WIDTH, BATCH = 20, 600, 256, 40  # 300 KB of vectors
IDS, VECTORS = make_ids(ROWS), make_vectors(ROWS, WIDTH)


def leave(free: int, ballast: Path) -> None:
    """Fill the disk but for so many bytes."""
    status = os.statvfs(ballast.parent)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, status.f_bavail * status.f_frsize - free))


def add_rows(root: Path) -> int:
    """Add rows until the disk refuses; how many are safe by our promise."""
    promised = 0
    with Shelf.open(root, FINGERPRINT, WIDTH).writer() as writer:
        for start in range(0, ROWS, BATCH):
            try:
                writer.add(IDS[start : start + BATCH], VECTORS[start : start + BATCH])
                writer.flush()
            except AgiqaError as error:
                lines.append(str(error))
                ballast = root.parent / "ballast"
                shelf = Shelf.open(root, FINGERPRINT, WIDTH)
                found = [image_id for image_id in IDS if image_id in shelf.ids()]
                assert found == IDS[: len(found)]
                assert len(found) >= promised, "acknowledged rows were lost"
                np.testing.assert_array_equal(shelf.read(found), VECTORS[: len(found)])
                ballast.unlink(missing_ok=True)  # for the flush at the end
                return promised
            promised = start + len(IDS[start : start + BATCH])
    return promised


disk = Path(sys.argv[1])
lines: list[str] = []
counts = dict.fromkeys(
    ("trials", "rows acknowledged", "full while adding", "full while packing"), 0
)
moments = random.Random(1)
packs = [disk / "a.zarr", disk / "a.h5"]
for path in packs:
    write_pack(path, "nano", ["a"], [{}], IDS[:50], VECTORS[:50, None])
for _ in range(TRIALS):
    Shelf.open(disk / "ledger", FINGERPRINT, WIDTH)
    leave(moments.randrange(0, 400_000), disk / "ballast")
    before = len(lines)
    counts["rows acknowledged"] += add_rows(disk / "ledger")
    counts["full while adding"] += len(lines) - before
    (disk / "ballast").unlink(missing_ok=True)

    shelf = Shelf.open(disk / "ledger", FINGERPRINT, WIDTH)
    with shelf.writer() as writer:  # space was freed
        writer.add(IDS, VECTORS)
    np.testing.assert_array_equal(shelf.read(IDS), VECTORS)
    assert check_shelf(shelf.folder).is_whole
    shutil.rmtree(disk / "ledger")

    for path in packs:
        leave(moments.randrange(0, 400_000), disk / "ballast")
        try:
            write_pack(path, "nano", ["a"], [{}], IDS, VECTORS[:, None])
        except AgiqaError as error:
            lines.append(str(error))
            counts["full while packing"] += 1
            assert check_pack(path).is_whole
            np.testing.assert_array_equal(read_pack(path).vectors[:, 0], VECTORS[:50])
        (disk / "ballast").unlink()
        write_pack(path, "nano", ["a"], [{}], IDS, VECTORS[:, None])
        assert check_pack(path).is_whole
        np.testing.assert_array_equal(read_pack(path).vectors[:, 0], VECTORS)
        write_pack(path, "nano", ["a"], [{}], IDS[:50], VECTORS[:50, None])
    counts["trials"] += 1
sys.stdout.write(json.dumps({"counts": counts, "lines": lines}))
