"""Many images through `agiqa score`: memory along the way, two kills, three containers.

    python benchmarks/score_many.py RUN [--images 100000] [--side 16]

Tiny images of noise in a webdataset tar, a Parquet file and a folder. The tar is scored first,
killed at a third and at two thirds, and finished by the same command; then the others, whose
vectors the ledger has by then. Printed are images/s, start included, and the process's memory at
10, 50 and 100 % of each start; the scores of all three have to be equal to the bit.
"""

import argparse
import io
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
from PIL import Image
from pyarrow import parquet


def main() -> None:
    """Write the images, score them three times, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", type=Path, help="with which to score; a tiny one shows the rest")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=16, help="pixels")
    chosen = parser.parse_args()
    run = chosen.run.resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["AGIQA_STORE"] = str(Path(folder, "ledger"))
        write_images(chosen.images, chosen.side)
        print("                     rows   images/s   MiB at 10, 50, 100 %")
        for share in (1 / 3, 2 / 3, None):
            score("images.tar", run, chosen.images, share)
        for images in ("images.parquet", "images"):
            score(images, run, chosen.images, None)
        tables = [pd.read_parquet(f"{name}.scores.parquet") for name in
                  ("images.tar", "images.parquet", "images")]  # fmt: skip
        for table in tables:
            table["image"] = table["image"].str.extract(r"(\d+)(?:\.png)?$").astype(int)
        first, *others = (table.sort_values("image", ignore_index=True) for table in tables)
        assert len(first) == chosen.images
        print("equal to the bit:", all(first.equals(other) for other in others))


def write_images(count: int, side: int) -> None:
    """Write the same images into images/, images.tar and images.parquet."""
    Path("images").mkdir()
    with tarfile.open("images.tar", "w") as archive:
        for name, content in noise(count, side):
            Path("images", name).write_bytes(content)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    rows = [content for _, content in noise(count, side)]
    parquet.write_table(pyarrow.table({"image": rows}), "images.parquet", row_group_size=10_000)


def noise(count: int, side: int) -> Iterator[tuple[str, bytes]]:
    """Make PNGs that all differ, by name."""
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG", compress_level=0)
        yield f"{number:07}.png", file.getvalue()


def score(images: str, run: Path, count: int, until: float | None) -> None:
    """Score them, killed at a share of the rows or not; print a line."""
    out = Path(f"{images}.scores.parquet")
    before, started = rows_of(out), time.monotonic()
    command = [sys.executable, "-m", "agiqa", "--quiet", "score", images, "--run", run, "-o", out]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    memory: list[tuple[int, float]] = []
    while process.poll() is None:
        memory.append((rows_of(out), resident(process.pid)))
        if until is not None and memory[-1][0] >= until * count:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.2)
    taken = time.monotonic() - started
    done = count if out.exists() else rows_of(out)
    assert until is not None or process.returncode == 0
    marks = [before + share * (done - before) for share in (0.1, 0.5)]
    peaks = [max(mib for rows, mib in memory if rows <= mark) for mark in marks]
    peaks.append(max(mib for _, mib in memory))
    what = f"{images}{', killed' if until is not None else ''}"
    shown = " ".join(f"{mib:5.0f}" for mib in peaks)
    print(f"{what:<22}{done:>7} {(done - before) / taken:>9.0f}   {shown}", flush=True)


def rows_of(out: Path) -> int:
    """Count the rows that are kept beside the file that is to be."""
    unfinished = Path(f"{out}.unfinished")
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"file:{unfinished}?mode=ro", uri=True)) as rows,
    ):
        return int(rows.execute("SELECT count(*) FROM images").fetchone()[0])
    return 0


def resident(pid: int) -> float:
    """Give a process's memory in MiB; 0 once it has ended."""
    with suppress(OSError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return 0.0


if __name__ == "__main__":
    main()
