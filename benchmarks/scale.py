"""What the Ray engine costs: many tiny images through plain `extract`, one actor and two.

Two nodes of one Ray cluster on this machine, a CPU each; a tiny random CLIP tower, so that all but
the model shows. Each way runs in a process of its own. Printed are images/s with and without the
start (of the cluster's processes, which import torch), CPU seconds of all processes (which another
load on the machine does not change) and how many more they are than plain `extract` takes, and the
driver's memory along the way.

    python benchmarks/scale.py [--images 20000] [--side 32]
    python benchmarks/scale.py --costs    # of 10^6 and 10^8 images, by calculation
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

import numpy as np
from PIL import Image

SMALL = {"num_cpus": 1, "object_store_memory": 200 << 20}


def main() -> None:
    """Measure the three ways, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument(
        "--workers", type=int, default=1, help="decoding processes of plain extract"
    )
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # folder, actors, address
    parser.add_argument("--costs", action="store_true", help="calculate; measure the index alone")
    chosen = parser.parse_args()
    if chosen.costs:
        _costs()
        return
    if chosen.one:
        _extract_one(Path(chosen.one[0]), int(chosen.one[1]), chosen.one[2], chosen.workers)
        return
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryDirectory() as folder:
        _write_images(Path(folder), chosen.images, chosen.side)
        _write_model(Path(folder))
        print("way        images/s  without start   CPU s  more CPU   driver MiB at 10, 50, 100 %")
        plain = _run(folder, 0, "", chosen.workers)
        _tell("plain", plain, plain)
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args=SMALL | {"include_dashboard": False})
        cluster.add_node(**SMALL)
        for actors in (1, 2):
            taken = _run(folder, actors, cluster.address, chosen.workers)
            _tell(f"{actors} actor{'s' * (actors > 1)}", taken, plain)
        cluster.shutdown()


def _run(folder: str, actors: int, address: str, workers: int) -> dict[str, float]:
    one = ["--one", folder, str(actors), address, "--workers", str(workers)]
    with _CpuSeconds() as cpu:
        done = subprocess.run([sys.executable, __file__, *one], stdout=subprocess.PIPE, check=True)
    taken: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return taken | {"cpu": cpu.seconds}


class _CpuSeconds:
    """Counts the CPU seconds of all processes below this one while it lasts, those that end too."""

    def __enter__(self) -> "_CpuSeconds":
        self._before, self._now, self._going = self._look(), dict[int, float](), True
        self._thread = Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while self._going:
            self._now |= self._look()
            time.sleep(0.5)

    def _look(self) -> dict[int, float]:
        import psutil

        taken = {}
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                times = process.cpu_times()
                taken[process.pid] = times.user + times.system
        return taken

    def __exit__(self, *_: object) -> None:
        self._going = False
        self._thread.join()
        self.seconds = sum(now - self._before.get(pid, 0) for pid, now in self._now.items())


def _tell(way: str, taken: dict[str, float], plain: dict[str, float]) -> None:
    steady, whole = taken["images"] / taken["steady"], taken["images"] / taken["seconds"]
    more = 100 * (taken["cpu"] / plain["cpu"] - 1)
    memory = ", ".join(f"{taken[at]:.0f}" for at in ("tenth", "half", "all"))
    print(
        f"{way:10} {whole:8.0f} {steady:14.0f} {taken['cpu']:7.0f} {more:+7.0f} %   {memory}",
        flush=True,
    )


def _write_images(folder: Path, count: int, side: int) -> None:
    from agiqa.data.datasets.folder import prepare
    from agiqa.data.datasets.table import write_table

    (folder / "images").mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number:07d}.png", compress_level=0)
    write_table(prepare(folder / "images", "tiny"), folder / "table")


def _write_model(folder: Path) -> None:
    import torch
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        image_size=32, patch_size=16,
    )  # fmt: skip
    CLIPVisionModel(config).save_pretrained(folder / "model")
    size = {"height": 32, "width": 32}
    CLIPImageProcessor(size=size, do_center_crop=False).save_pretrained(folder / "model")


def _extract_one(folder: Path, actors: int, address: str, workers: int) -> None:
    """Extract; the seconds from the first rows on leave the start out."""
    from agiqa.core.params import Visual
    from agiqa.data.datasets.table import read_table
    from agiqa.stage1.extract import extract
    from agiqa.stage1.extractors import VisionExtractor
    from agiqa.stage1.one_machine import OneMachine
    from agiqa.stage1.ray_cluster import RayCluster

    settings = Visual(
        name="tiny", model=str(folder / "model"), layers=(1, 2), image_size=32, closeup=0
    )
    table, extractor = read_table(folder / "table"), VisionExtractor(settings)
    images, samples = len(table.frame), list[tuple[float, int, float]]()
    ledger = folder / f"ledger-{actors}"

    def watch() -> None:
        while True:
            names = [path.name for path in ledger.glob("*/segments/*.safetensors")]
            rows = sum(int(name.partition("-")[2].partition(".")[0]) for name in names)
            samples.append((time.monotonic(), rows // 2, _resident()))
            time.sleep(0.5)

    Thread(target=watch, daemon=True).start()
    engine = RayCluster(address, actors) if actors else OneMachine(workers)
    started = time.monotonic()
    extract(table, extractor, folder / f"{actors}.zarr", ledger=ledger, engine=engine)
    ended = time.monotonic()
    # Few images may be done before their first rows are on the disk.
    at, there, _ = next((s for s in samples if 0 < s[1] < images), (started, 0, 0.0))
    memory = {
        name: next((mib for _, rows, mib in samples if rows >= part * images), _resident())
        for name, part in (("tenth", 0.1), ("half", 0.5), ("all", 1.0))
    }
    steady = (ended - at) * images / (images - there)
    print(json.dumps({"images": images, "seconds": ended - started, "steady": steady, **memory}))


def _costs() -> None:
    """Print what the ledger, its index, a bucket and the devices come to."""
    from agiqa.store.ledger.segments import ROWS_A_SEGMENT

    extra = 4 + 32  # bytes of a row beside its numbers: checksum, id
    nano, lmm = 2 * (2 * 576 + extra) + 8 * (2 * 2304 + extra), 2 * (2 * 3584 + extra)
    index = _index_bytes()
    print(f"bytes an image: nano {nano:,} (with visual vectors), a 7B LMM's two {lmm:,}")
    print(f"bytes of the index a row, measured: {index:.0f}")
    for images in (10**6, 10**8):
        segments, requests = -(-images // ROWS_A_SEGMENT), -(-images // ROWS_A_SEGMENT // 1000)
        print(f"{images:,} images")
        print(f"  nano {images * nano / 1e9:,.1f} GB, 7B LMM {images * lmm / 1e9:,.1f} GB")
        print(f"  a vector: {segments:,} segments, before merging up to {images // 64:,} (of 64)")
        print(f"  listed by {requests} requests; ids {2 * segments:,} ranges, {32e-9 * images} GB")
        print(f"  index a vector: {images * index / 1e9:.2f} GB")
        print(f"  nano's LMM at 3.6 images/s: {images / 3.6 / 3600:,.1f} h on two CPU cores")
        print(f"  7B LMM, 4.5 TFLOP an image, at 400 TFLOP/s: {images * 4.5 / 400 / 3600:,.1f} h")


def _index_bytes(rows: int = 200_000) -> float:
    """Memory of a shelf's index, a row."""
    import hashlib
    import tracemalloc

    from agiqa.store import Shelf

    ids = [hashlib.sha256(str(row).encode()).hexdigest() for row in range(rows)]
    with tempfile.TemporaryDirectory() as root:
        shelf = Shelf.open(Path(root), {"extractor": "none"}, 8)
        with shelf.writer() as writer:
            writer.add(ids, np.ones((rows, 8), dtype=np.float16))
        again = Shelf.at(shelf.folder)
        tracemalloc.start()
        again.rows.refresh()
        return tracemalloc.get_traced_memory()[0] / rows


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
