"""How fast vectors are kept and read: our stores beside what one would use instead.

Every way keeps the same vectors in turn, on the same disk, in one run; trust the ratios before the
seconds. Measured, the median of the rounds:

    write      appended 16 rows at a time, until all is on the disk. Of the ways, only the ledger
               and LMDB promise what they have acknowledged (every 256 rows here) whatever happens;
               the others are synced once, at the end. A pack is written whole, from the ledger
    open       the file pages dropped from memory, then the first row
    cold       all rows into memory, the pages dropped before
    load       all rows into memory, pages warm. Ours, with checksums compared
    batches    rows a second in random batches of 64, after loading
    add, status  of DVC, with --dvc

    python benchmarks/store.py                       # 20,000 images x 2 prompts x 4096, 328 MB
    python benchmarks/store.py --dvc --rounds 1
    python benchmarks/store.py --only ledger LMDB
    python benchmarks/store.py --memory              # what a process holds as stores grow
"""

import argparse
import hashlib
import importlib.util
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ways_to_keep import FINGERPRINTS, PROMPTS, WAYS, Data, Rows, Way

from agiqa.store import Shelf, read_pack, write_pack

BATCH, BATCHES = 64, 200


def make(rows: int, width: int) -> Data:
    """Random vectors; what they are does not matter, nothing here compresses."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((rows, len(PROMPTS), width), dtype=np.float32)
    ids = [hashlib.sha256(str(row).encode()).hexdigest() for row in range(rows)]
    return Data(ids, vectors.astype(np.float16))


def seconds(work: Callable[[], object]) -> float:
    """That `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def drop_pages(*folders: Path) -> None:
    """Take the files out of the page cache; they are clean, since all was synced."""
    os.sync()
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                descriptor = os.open(path, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)


def measure(way: Way, data: Data, root: Path, with_dvc: bool) -> dict[str, float]:
    """One round of one way."""
    folder = root / "data"
    folder.mkdir(parents=True)
    found = {"write": seconds(lambda: way.write(folder, data))}
    files = [path for path in folder.rglob("*") if path.is_file()]
    found["files"] = len(files)
    found["MB"] = sum(path.stat().st_size for path in files) / 1e6
    drop_pages(root)
    found["open"] = seconds(lambda: way.first(folder, data))
    drop_pages(root)
    found["cold"] = seconds(lambda: way.load(folder, data))
    found["load"] = seconds(lambda: _touch(way.load(folder, data), data))
    read = way.load(folder, data)
    random = np.random.default_rng(1)
    batches = random.integers(len(data.ids), size=(BATCHES, BATCH)).tolist()
    found["batches"] = BATCH * BATCHES / seconds(lambda: [read(rows) for rows in batches])
    np.testing.assert_array_equal(read(batches[0]), data.vectors[batches[0]])
    if with_dvc:
        found |= dvc(root)
    return found


def _touch(read: Rows, data: Data) -> None:
    """Have the last row: nothing loads less than all."""
    read([len(data.ids) - 1])


def dvc(root: Path) -> dict[str, float]:
    """Seconds of `dvc add` and of a `dvc status` with nothing new."""

    def run(*arguments: str) -> None:
        command = [sys.executable, "-m", "dvc", *arguments, "--quiet"]
        subprocess.run(command, cwd=root, check=True)

    run("init", "--no-scm")
    return {"add": seconds(lambda: run("add", "data")), "status": seconds(lambda: run("status"))}


COLUMNS = ("write", "files", "MB", "open", "cold", "load", "batches", "add", "status")


COMPARED = ("write", "cold", "load")


def table(found: dict[str, dict[str, float]], data: Data) -> str:
    """Seconds, and the rates that have a goal."""
    columns = [name for name in COLUMNS if any(name in row for row in found.values())]
    lines = [f"{'':24}" + "".join(f"{name:>10}" for name in columns) + f"{'write MB/s':>12}"]
    for name, row in found.items():
        cells = [_cell(column, row.get(column)) for column in columns]
        rate = data.vectors.nbytes / 1e6 / row["write"]
        lines.append(f"{name:24}" + "".join(f"{cell:>10}" for cell in cells) + f"{rate:12.0f}")
    return "\n".join(lines)


def _cell(column: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if column in ("files", "MB", "batches") else f"{value:.3f}"


def compare(data: Data, where: Path, rounds: int, with_dvc: bool, only: list[str]) -> None:
    """All ways, or those with a word of `only` in their names, in turn, round by round."""
    found: dict[str, list[dict[str, float]]] = {}
    chosen = [way for way in WAYS if not only or any(word in way.name for word in only)]
    for _ in range(rounds):
        for way in chosen:
            if way.needs and importlib.util.find_spec(way.needs) is None:
                print(f"{way.name} is left out: pip install {way.needs}")
                continue
            with tempfile.TemporaryDirectory(dir=where) as root:
                found.setdefault(way.name, []).append(measure(way, data, Path(root), with_dvc))
    medians = {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for name, rows in found.items()
    }
    print(f"\n{data.vectors.shape} float16, {data.vectors.nbytes / 1e6:.0f} MB; seconds\n")
    print(table(medians, data))
    for name, beside in (("our ledger", "LMDB"), ("our pack", "memory map .npy")):
        for own in (way for way in medians if way.startswith(name) and beside in medians):
            ratios = {key: medians[own][key] / medians[beside][key] for key in COMPARED}
            said = ", ".join(f"{key} {ratio:.2f}" for key, ratio in ratios.items())
            print(f"{own}, times that of {beside}: {said}")
    whole = data.vectors.reshape(-1).view(np.uint8).data
    for name, work in (("sha256", hashlib.sha256), ("CRC-32", zlib.crc32)):
        print(f"{name} of all bytes alone, seconds: {seconds(lambda: work(whole)):.2f}")  # noqa: B023
    print(json.dumps(medians))


def memory(where: Path, width: int) -> None:
    """Peak memory of a process that writes, packs and reads stores of several sizes.

    Above what it holds at the start, its list of image ids included.
    """
    context = multiprocessing.get_context("spawn")
    print(f"{'rows':>10}{'MB':>8}" + "".join(f"{name:>16}" for name in STEPS) + "   (MiB)")
    for rows in (125_000, 500_000):
        with tempfile.TemporaryDirectory(dir=where) as root:
            cells = []
            for step in STEPS:
                queue = context.Queue()
                process = context.Process(target=_step, args=(step, Path(root), rows, width, queue))
                process.start()
                cells.append(queue.get())
                process.join()
        size = rows * width * 2 / 1e6
        print(f"{rows:10,}{size:8,.0f}" + "".join(f"{cell:16.0f}" for cell in cells), flush=True)


STEPS = ("write", "pack .zarr", "pack .h5", "load")


def _step(step: str, root: Path, rows: int, width: int, queue: Any) -> None:
    ids = [hashlib.sha256(str(row).encode()).hexdigest() for row in range(rows)]
    block = np.random.default_rng(0).standard_normal((4096, width)).astype(np.float16)
    shelf = Shelf.open(root / "ledger", FINGERPRINTS[0], width)
    peak = _Peak()
    if step == "write":
        with shelf.writer() as writer:
            for start in range(0, rows, len(block)):
                some = ids[start : start + len(block)]
                writer.add(some, block[: len(some)])
    elif step.startswith("pack"):
        suffix = step.split()[1]
        fingerprints = FINGERPRINTS[:1]
        given = _Ledger(shelf, ids)
        write_pack(root / f"pack{suffix}", "benchmark", PROMPTS[:1], fingerprints, ids, given)
    else:
        np.testing.assert_array_equal(
            read_pack(root / "pack.zarr").rows(ids[-1:])[0, 0].shape, width
        )
    queue.put(peak.grown() / 2**20)


class _Ledger:
    """A shelf's rows, as `extract` packs them."""

    def __init__(self, shelf: Shelf, ids: list[str]) -> None:
        self.shelf, self.ids = shelf, ids
        self.shape, self.dtype = (len(ids), 1, shelf.width), np.dtype(shelf.dtype)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.shelf.read(self.ids[rows])[:, None]


class _Peak:
    """The most memory of its own that this process has had, looked up every few milliseconds."""

    def __init__(self) -> None:
        self.before = self.most = self._now()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def grown(self) -> int:
        """Bytes at the peak above those at the start."""
        self.stop.set()
        self.thread.join()
        return self.most - self.before

    def _watch(self) -> None:
        while not self.stop.wait(0.005):
            self.most = max(self.most, self._now())

    @staticmethod
    def _now() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()  # Linux
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def main() -> None:
    """Compare, or measure memory."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=20_000, help="images")
    parser.add_argument("--width", type=int, default=4096, help="of a vector")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[], help="ways, by a part of their names")
    parser.add_argument("--dvc", action="store_true", help="time `dvc add` and `dvc status`, too")
    parser.add_argument("--memory", action="store_true", help="peak memory as stores grow, alone")
    parser.add_argument("--where", type=Path, default=Path(tempfile.gettempdir()), help="a disk")
    chosen = parser.parse_args()
    if chosen.memory:
        memory(chosen.where, min(chosen.width, 512))
    else:
        compare(
            make(chosen.rows, chosen.width), chosen.where, chosen.rounds, chosen.dvc, chosen.only
        )


if __name__ == "__main__":
    main()
