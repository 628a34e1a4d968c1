"""A disk that is really full, at another place each time; and files that may not grow."""

import json
from collections.abc import Callable
from pathlib import Path

FILES_THAT_MAY_NOT_GROW = """
import resource, sys
from pathlib import Path
from kit.stored_rows import add_rows, make_ids, make_vectors
from agiqa.core.errors import AgiqaError
from agiqa.store import Shelf, write_pack
from agiqa.store.checks import check_pack

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
