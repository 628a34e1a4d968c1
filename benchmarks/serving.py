"""`agiqa serve` under load: requests a second, latency, and memory, on this machine.

Starts a server of the run and asks it with several clients at once, an image a request:

    fresh        images that nobody has seen: decoded, through the models, into the ledger
    cached       distinct images of the data set, whose vectors the ledger has
    remembered   the same images again, whose scores the server has

Resident memory is read before, in the middle of, and after each.

    python benchmarks/serving.py --run runs/agiqa-3k/grouped [--cached 2000] [--fresh 40]
"""

import argparse
import asyncio
import io
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from agiqa.checkpoints import load_provenance
from agiqa.datasets.table import read_table
from agiqa.images import decode


@dataclass(frozen=True)
class Load:
    """What one kind of load gave."""

    kind: str
    seconds: Sequence[float]  # of each request
    wall: float
    resident: Sequence[float]  # bytes: before, in the middle, after

    def row(self) -> str:
        """As a row of a Markdown table."""
        cuts = statistics.quantiles(self.seconds, n=100)
        memory = " / ".join(f"{each / 2**20:.0f}" for each in self.resident)
        return (
            f"| {self.kind} | {len(self.seconds)} | {len(self.seconds) / self.wall:.2f} "
            f"| {cuts[49]:.3f} | {cuts[98]:.3f} | {memory} |"
        )


def main() -> None:
    """Measure the three kinds and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--requests", type=int, default=2000, help="of remembered images")
    parser.add_argument("--cached", type=int, default=2000, help="requests with cached vectors")
    parser.add_argument("--fresh", type=int, default=40, help="requests with fresh images")
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    table = read_table(options.cache / str(load_provenance(options.run)["dataset"]))
    distinct = table.frame.drop_duplicates("image_id").index
    files = [table.paths()[row] for row in distinct][: options.cached]
    fresh = [_changed(files[number % len(files)], number) for number in range(options.fresh)]
    with _server(options.run, options.cache) as (url, pid):
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.clients} clients")
        print("| images | requests | requests/s | p50 s | p99 s | MiB before / middle / after |")
        print("|---|---|---|---|---|---|")
        known = [path.read_bytes() for path in files]
        again = [known[number % len(known)] for number in range(options.requests)]
        for kind, bodies in (("fresh", fresh), ("cached", known), ("remembered", again)):
            print(asyncio.run(_ask(url, pid, kind, bodies, options.clients)).row(), flush=True)
        print(f"load {os.getloadavg()[0]:.1f} at the end")


@contextmanager
def _server(run: Path, cache: Path) -> Iterator[tuple[str, int]]:
    """A server that is ready: its URL and process id."""
    command = [sys.executable, "-c", "from agiqa.cli import main; main()", "serve"]
    arguments = ["--run", str(run), "--cache", str(cache), "--port", "0"]
    with subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        try:
            url = ""
            for line in process.stdout:
                if found := re.match(r"(http://\S+)/ ", line):
                    url = found[1]
                if line.startswith("Ready"):
                    break
            else:
                raise SystemExit("the server did not start")
            yield url, process.pid
        finally:
            process.terminate()


async def _ask(url: str, pid: int, kind: str, bodies: Sequence[bytes], clients: int) -> Load:
    """Send every body once, by so many clients at a time."""
    seconds: list[float] = []
    resident = [_resident(pid)]
    left = iter(bodies)

    async def client() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=600) as http:
            for body in left:
                started = time.perf_counter()
                answer = await http.post("/api/v1/scores", files={"images": ("image", body)})
                seconds.append(time.perf_counter() - started)
                answer.raise_for_status()
                if not answer.json()["scores"]:
                    raise SystemExit(f"refused: {answer.json()['refused']}")
                if len(seconds) == len(bodies) // 2:
                    resident.append(_resident(pid))

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    wall = time.perf_counter() - started
    return Load(kind, seconds, wall, [*resident, _resident(pid)])


def _resident(pid: int) -> float:
    """Bytes of memory that the process holds."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024.0


def _changed(path: Path, number: int) -> bytes:
    """The image with other noise in its last bits than any before: a picture nobody has seen."""
    pixels = np.asarray(decode(path))
    noise = np.random.default_rng([number, time.time_ns()]).integers(0, 2, pixels.shape, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels ^ noise).save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    main()
