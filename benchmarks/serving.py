"""`agiqa serve` under load and attack: requests a second, latency, memory, and the end.

Starts a server of the run and asks it with several clients at once, an image a request:

    fresh        images that nobody has seen: decoded, through the models, into the ledger
    cached       distinct images of the data set, whose vectors the ledger has
    remembered   the same images again, whose scores the server has
    64 at once   fresh images, all sent together
    … attacked   the same, but each fourth is a file that is made to keep a decoder busy: JPEGs
                 of 64 megapixels with 3,000 and with 40 scans, and a PNG of one row
    3,000 …      remembered images, each 20th request one of those files
    largest      the most work that is accepted: JPEGs of 64 megapixels with 30 scans

Latencies are of the other images; `/health` is asked every 50 ms meanwhile. Resident memory, with
that of the server's decoders, is read before, in the middle of, and after each. At the end SIGTERM
is sent with fresh images and such files under way.

    python benchmarks/serving.py --run runs/agiqa-3k/grouped [--cached 2000] [--fresh 40]
"""

import argparse
import asyncio
import io
import itertools
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from image_limits import scans
from PIL import Image

from agiqa.data.datasets.table import read_table
from agiqa.data.images import decode
from agiqa.runs.files import load_provenance

HEALTH_SECONDS = 0.05  # between two looks


@dataclass(frozen=True)
class Sent:
    """A file to score, and whether it is one of an attacker's."""

    body: bytes
    hostile: bool = False


@dataclass(frozen=True)
class Load:
    """What one kind of load gave."""

    kind: str
    requests: int
    refused: int  # files of an attacker
    seconds: Sequence[float]  # of each good request
    health: float  # the longest that /health took
    wall: float
    resident: Sequence[float]  # bytes: before, in the middle, after

    def row(self) -> str:
        """As a row of a Markdown table."""
        cuts = statistics.quantiles(self.seconds, n=100, method="inclusive")
        memory = " / ".join(f"{bytes_ / 2**20:.0f}" for bytes_ in self.resident)
        return (
            f"| {self.kind} | {self.requests} | {self.refused} | {self.requests / self.wall:.2f} "
            f"| {cuts[49]:.3f} | {cuts[98]:.3f} | {max(self.seconds):.3f} | {self.health:.3f} "
            f"| {memory} |"
        )


def main() -> None:
    """Measure each kind and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--requests", type=int, default=2000, help="of remembered images")
    parser.add_argument("--cached", type=int, default=2000, help="requests with cached vectors")
    parser.add_argument("--fresh", type=int, default=40, help="requests with fresh images")
    parser.add_argument("--together", type=int, default=64, help="requests at once")
    parser.add_argument("--endure", type=int, default=3000, help="requests, some of an attacker")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--timeout", type=float, default=300, help="of the server, and its grace")
    options = parser.parse_args()
    table = read_table(options.cache / str(load_provenance(options.run)["dataset"]))
    distinct = table.frame.drop_duplicates("image_id").index
    files = [table.paths()[row] for row in distinct][: options.cached]
    fresh = (Sent(_changed(files[number % len(files)], number)) for number in itertools.count())
    hostile = _hostile()
    known = [Sent(path.read_bytes()) for path in files]
    again = list(itertools.islice(itertools.cycle(known), options.requests))
    largest = [Sent(body) for body in _largest(4)]
    endured = [
        next(hostile) if number % 20 == 0 else known[number % len(known)]
        for number in range(options.endure)
    ]
    together = list(itertools.islice(fresh, options.together))
    attacked = [
        next(hostile) if number % 4 == 0 else next(fresh) for number in range(options.together)
    ]
    with _server(options) as (url, process):
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.clients} clients")
        print(
            "| images | requests | refused | requests/s | p50 s | p99 s | longest s | /health s "
            "| MiB before / middle / after |\n|---|---|---|---|---|---|---|---|---|"
        )
        for kind, sent, clients in (
            ("fresh", list(itertools.islice(fresh, options.fresh)), options.clients),
            ("cached", known, options.clients),
            ("remembered", again, options.clients),
            (f"{options.together} at once", together, options.together),
            (f"{options.together} at once, attacked", attacked, options.together),
            (f"{options.endure}, attacked", endured, options.clients),
            ("largest", largest, 1),
        ):
            print(asyncio.run(_ask(url, process.pid, kind, sent, clients)).row(), flush=True)
        under_way = [*itertools.islice(fresh, 12), *itertools.islice(hostile, 6)]
        print(asyncio.run(_stop(url, process, under_way)))
        print(f"load {os.getloadavg()[0]:.1f} at the end")


@contextmanager
def _server(options: argparse.Namespace) -> "Iterator[tuple[str, subprocess.Popen[str]]]":
    """A server that is ready: its URL and process."""
    command = [sys.executable, "-c", "from agiqa.cli import main; main()", "serve"]
    arguments = ["--run", str(options.run), "--cache", str(options.cache), "--port", "0"]
    with subprocess.Popen(
        [*command, *arguments, "--timeout", str(options.timeout)],
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
            yield url, process
        finally:
            process.terminate()


async def _ask(url: str, pid: int, kind: str, sent: Sequence[Sent], clients: int) -> Load:
    """Send every file once, by so many clients at a time."""
    seconds: list[float] = []
    refused = done = 0
    resident = [_resident(pid)]
    left = iter(sent)

    async def client() -> None:
        nonlocal refused, done
        async with httpx.AsyncClient(base_url=url, timeout=None) as http:
            for file in left:
                started = time.perf_counter()
                answer = await _post(http, file)
                took = time.perf_counter() - started
                answer.raise_for_status()
                bad = answer.json()["refused"]
                if bad and not file.hostile:
                    raise SystemExit(f"refused: {bad}")
                refused += len(bad)
                if not file.hostile:
                    seconds.append(took)
                done += 1
                if done == len(sent) // 2:
                    resident.append(_resident(pid))

    started = time.perf_counter()
    health = _Health(url)
    health.start()
    await asyncio.gather(*(client() for _ in range(clients)))
    wall = time.perf_counter() - started
    health.done.set()
    await asyncio.to_thread(health.join)
    resident.append(_resident(pid))
    return Load(kind, len(sent), refused, seconds, health.longest, wall, resident)


async def _post(http: httpx.AsyncClient, file: Sent) -> httpx.Response:
    """The answer; where too many are under way, after coming again as told."""
    while True:
        answer = await http.post("/api/v1/scores", files={"images": ("image", file.body)})
        if answer.status_code != 503:
            return answer
        await asyncio.sleep(int(answer.headers["retry-after"]))


class _Health(threading.Thread):
    """Asks for /health again and again, from a thread, and notes the longest that it took."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.done, self.longest = url, threading.Event(), 0.0

    def run(self) -> None:
        """Ask until `done`."""
        with httpx.Client(base_url=self.url, timeout=None) as http:
            while not self.done.wait(HEALTH_SECONDS):
                started = time.perf_counter()
                http.get("/health").raise_for_status()
                self.longest = max(self.longest, time.perf_counter() - started)


async def _stop(url: str, process: "subprocess.Popen[str]", sent: Sequence[Sent]) -> str:
    """Send the files, then SIGTERM: how they were answered, and when the process was gone."""
    async with httpx.AsyncClient(base_url=url, timeout=None) as http:

        async def post(file: Sent) -> int:
            answer = await http.post("/api/v1/scores", files={"images": ("image", file.body)})
            return answer.status_code

        posts = [asyncio.create_task(post(file)) for file in sent]
        while not (await http.get("/health")).json()["waiting"]:
            await asyncio.sleep(HEALTH_SECONDS)
        process.terminate()
        started = time.perf_counter()
        while (await http.get("/health")).json()["ready"]:
            await asyncio.sleep(0)
        unready = time.perf_counter() - started
        late = (await http.get("/api/v1/run")).status_code
        statuses = Counter(await asyncio.gather(*posts))
    status = await asyncio.to_thread(process.wait)
    gone = time.perf_counter() - started
    return (
        f"SIGTERM with {len(sent)} requests under way: not ready after {unready:.2f} s, a new "
        f"request got {late}, those under way {dict(statuses)}; gone after {gone:.1f} s with exit "
        f"status {status}"
    )


def _resident(pid: int) -> float:
    """Bytes of memory that the process and its children hold."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0.0
    for each in (str(pid), *children):
        with suppress(FileNotFoundError, AttributeError):  # it has just ended
            status = Path(f"/proc/{each}/status").read_text()
            total += int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024.0  # type: ignore[index]
    return total


def _changed(path: Path, number: int) -> bytes:
    """The image with other noise in its last bits than any before: a picture nobody has seen."""
    pixels = np.asarray(decode(path))
    noise = np.random.default_rng([number, time.time_ns()]).integers(0, 2, pixels.shape, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels ^ noise).save(file, "PNG")
    return file.getvalue()


def _hostile() -> Iterator[Sent]:
    """Files that are made to keep a decoder busy, or to fill its memory; none comes twice."""
    row = io.BytesIO()
    Image.new("L", (64_000_000, 1)).save(row, "PNG")
    bodies = [scans(_progressive(), 3000), row.getvalue(), scans(_progressive(), 40)]
    for number in itertools.count():
        yield Sent(bodies[number % len(bodies)] + b"%d" % number, hostile=True)


def _largest(count: int) -> list[bytes]:
    """Files that take as long as any that is accepted."""
    return [scans(_progressive(), 24) + b"%d" % time.time_ns() for _ in range(count)]


def _progressive() -> bytes:
    file = io.BytesIO()
    Image.new("L", (8000, 8000)).save(file, "JPEG", progressive=True)
    return file.getvalue()


if __name__ == "__main__":
    main()
