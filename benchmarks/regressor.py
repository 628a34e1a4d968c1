"""How fast the paper's network is here, beside the reference's way of running it.

Each way lives in a process of its own, so that peak memory is its own, and they take turns, so
trust the ratios before the seconds. Timed apart: a batch from disk to the device, a forward pass
without gradients, a training step (forward, backward, Adam). The last column, disk and training
step one after the other, is what an epoch is made of where no other process decodes.

    reference   `reference_regressor`: twelve ViT blocks, attention by products and softmax, dead
                layers; PNG files decoded and resized each time, a .pt file for each image and
                prompt with a whole batch of 8 inside; float32
    ours        `agiqa.stage2.paper.network`; pixels and vectors from arrays on disk; float32
    ours-bf16   on a GPU: the same in bfloat16 autocast, as `fit` trains there

    python benchmarks/regressor.py      # a GPU: full size, batch 8, then each way's best batch
                                        # a CPU: a reduced size, batch 4
    python benchmarks/regressor.py --size full --batch-size 1 --rounds 1      # a CPU, a minute
"""

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image
from reference_regressor import ReferenceRegressor
from torch import Tensor, nn

from agiqa.core.memory import ran_out
from agiqa.data.images import decode, resize_bicubic
from agiqa.stage2.paper.inputs import as_input
from agiqa.stage2.paper.network import PaperConfig, PaperRegressor
from agiqa.stage2.paper.weights import reference_name

SIZES = {
    "full": PaperConfig(),
    "reduced": PaperConfig(image_size=128, width=192, heads=3, semantic_width=512, swin_mlp=192),
    "tiny": PaperConfig(32, 4, width=32, heads=2, semantic_width=64, swin_mlp=32),  # to try it out
}
REFERENCE, OURS, OURS_BF16 = "reference", "ours", "ours-bf16"
WORKS = ("disk", "forward", "training step")
PROMPTS = ("semantic_content", "coherence")
STORED_TOGETHER = 8  # vectors in each of the reference's .pt files, which are views of a batch
PICTURE = 512  # pixels a side of the PNG files
IMAGES = 32  # of them
MOST = 1024  # images at a time


@dataclass(frozen=True)
class Files:
    """Images and vectors on disk, for both ways."""

    folder: Path
    names: tuple[str, ...]

    def as_reference(self, rows: list[int], size: int) -> tuple[Tensor, Tensor]:
        """Decoded, resized, unpickled: pixels `(B, S, S, 3)` and vectors `(B, 2, D)`."""
        paths = [self.folder / self.names[row] for row in rows]
        pixels = [
            resize_bicubic(np.asarray(decode(path.with_suffix(".png"))), size) for path in paths
        ]
        vectors = [
            torch.cat([torch.load(f"{path}_{prompt}.pt")[0] for prompt in PROMPTS])
            for path in paths
        ]
        return torch.from_numpy(np.stack(pixels)), torch.stack(vectors).float()

    def as_ours(self, rows: list[int], size: int) -> tuple[Tensor, Tensor]:
        """The same, copied out of mapped files."""
        pixels = np.load(self.folder / "pixels.npy", mmap_mode="r")[rows]
        vectors = np.load(self.folder / "vectors.npy", mmap_mode="r")[rows]
        return torch.from_numpy(pixels), torch.from_numpy(vectors).float()


def make_files(folder: Path, config: PaperConfig) -> Files:
    """Pictures and vectors of noise; what they show does not change the arithmetic."""
    rng = np.random.default_rng(0)
    names = tuple(f"{row:04d}" for row in range(IMAGES))
    shape = (IMAGES, len(PROMPTS), config.semantic_width)
    vectors = rng.normal(size=shape).astype(np.float16)
    pixels = []
    for row, name in enumerate(names):
        coarse = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((PICTURE, PICTURE), Image.Resampling.BICUBIC))
        grain = rng.integers(-4, 5, smooth.shape)
        picture = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{name}.png")
        pixels.append(resize_bicubic(picture, config.image_size))
        for place, prompt in enumerate(PROMPTS):
            batch = torch.from_numpy(vectors[row, place]).repeat(STORED_TOGETHER, 1, 1)
            torch.save(batch[:1], folder / f"{name}_{prompt}.pt")
    np.save(folder / "pixels.npy", np.stack(pixels))
    np.save(folder / "vectors.npy", vectors)
    return Files(folder, names)


def network(way: str, config: PaperConfig) -> nn.Module:
    """The way's network with random weights."""
    torch.manual_seed(0)
    return ReferenceRegressor(config) if way == REFERENCE else PaperRegressor(config)


def scores(model: nn.Module, image: Tensor, semantic: Tensor) -> Tensor:
    """`(B,)` of either network."""
    found = model(image, semantic)
    return found.score if isinstance(model, PaperRegressor) else found


class Bench:
    """One way, ready to be timed in this process."""

    def __init__(self, way: str, config: PaperConfig, files: Files) -> None:
        self.device = PartialState().device
        self.size = config.image_size
        self.read = files.as_reference if way == REFERENCE else files.as_ours
        self.bf16 = way == OURS_BF16
        self.model = network(way, config).to(self.device)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-5, weight_decay=1e-5)

    def seconds(self, work: str, batch: int) -> float:
        """That the work takes for so many images, the device's queue emptied before and after."""
        works: dict[str, Callable[[Tensor, Tensor], object]] = {
            "disk": lambda image, semantic: self.load(batch),
            "forward": self.forward,
            "training step": self.train,
        }
        given = self.load(batch)
        self.wait()
        started = time.perf_counter()
        works[work](*given)
        self.wait()
        return time.perf_counter() - started

    def load(self, batch: int) -> tuple[Tensor, Tensor]:
        """A batch from disk to the device."""
        rows = [row % IMAGES for row in range(batch)]
        pixels, semantic = self.read(rows, self.size)
        return as_input(pixels.to(self.device)), semantic.to(self.device)

    @torch.inference_mode()
    def forward(self, image: Tensor, semantic: Tensor) -> None:
        """Scores of a batch."""
        self.model.eval()
        with self.autocast():
            scores(self.model, image, semantic)

    def train(self, image: Tensor, semantic: Tensor) -> None:
        """An update by a batch."""
        self.model.train()
        self.optimiser.zero_grad()
        with self.autocast():
            found = scores(self.model, image, semantic)
        (found.float() - 3).square().mean().backward()
        self.optimiser.step()

    def autocast(self) -> torch.autocast:
        """bfloat16, where that is the way."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def wait(self) -> None:
        """For the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak(self) -> float:
        """GB: of this process on the GPU, or of the whole process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e9
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def serve(pipe: Connection, way: str, config: PaperConfig, files: Files, threads: int) -> None:
    """A way's process: answers (work, batch) with seconds and peak memory, None if it ran out."""
    torch.set_num_threads(threads)
    bench = Bench(way, config, files)
    while (asked := pipe.recv()) is not None:
        try:
            pipe.send((bench.seconds(*asked), bench.peak()))
        except RuntimeError as error:
            if not ran_out(error):
                raise
            pipe.send(None)


@contextmanager
def started(way: str, config: PaperConfig, files: Files) -> Iterator[Connection]:
    """The way's process, and the pipe to ask it through."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    given = (there, way, config, files, torch.get_num_threads())
    process = context.Process(target=serve, args=given, daemon=True)
    process.start()
    there.close()  # or the end of that process would not be noticed here
    try:
        yield here
    finally:
        with suppress(OSError):  # it has ended by itself
            here.send(None)
        process.join(timeout=60)


def in_turn(
    ways: dict[str, Connection], work: str, batch: int, rounds: int
) -> dict[str, tuple[list[float], float]]:
    """Seconds of each round and peak memory for each way, after one round to warm up."""
    taken: dict[str, list[float]] = {way: [] for way in ways}
    peaks: dict[str, float] = {}
    for counted in [False, *[True] * rounds]:
        for way, pipe in ways.items():
            pipe.send((work, batch))
            answer = pipe.recv()
            if answer is None:
                raise SystemExit(
                    f"Memory ran out with {batch} images; take a smaller --batch-size."
                )
            if counted:
                taken[way].append(answer[0])
                peaks[way] = answer[1]
    return {way: (taken[way], peaks[way]) for way in ways}


def best_batch(way: str, config: PaperConfig, files: Files, first: int) -> tuple[int, float, float]:
    """Batch with the most images/s in training, those, and GB; doubled until memory ends."""
    best, batch = (0, 0.0, 0.0), first
    with started(way, config, files) as pipe:
        while batch <= MOST:
            answers = []
            for _ in range(3):  # the first warms up
                pipe.send(("training step", batch))
                answers.append(pipe.recv())
            if None in answers:
                break
            speed = batch / min(seconds for seconds, _ in answers[1:])
            if speed > best[1]:
                best = (batch, speed, answers[-1][1])
            batch *= 2
    return best


def difference(config: PaperConfig) -> float:
    """Largest between the two ways' scores of two images with the same weights, in deviations."""
    ours, theirs = network(OURS, config).eval(), network(REFERENCE, config).eval()
    weights = {reference_name(name): weight for name, weight in ours.named_parameters()}
    unknown = theirs.load_state_dict(weights, strict=False).unexpected_keys
    assert not unknown, unknown
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, config.image_size, config.image_size, generator=generator) * 2 - 1
    semantic = torch.randn(2, len(PROMPTS), config.semantic_width, generator=generator)
    with torch.inference_mode():
        found, expected = (scores(model, image, semantic) for model in (ours, theirs))
    return float((found - expected).abs().max() / expected.std())


def table(found: dict[str, dict[str, tuple[list[float], float]]], batch: int) -> Iterator[str]:
    """Seconds and memory of each way, and how the reference stands to the others."""
    columns = [*WORKS, "disk + step"]
    yield f"{'':>10}" + "".join(f"{column:>15}" for column in columns) + "   peak forward, training"
    rounds: dict[str, dict[str, list[float]]] = {}
    for way in found[WORKS[0]]:
        each = {work: found[work][way][0] for work in WORKS}
        disk, step = each["disk"], each["training step"]
        each["disk + step"] = [a + b for a, b in zip(disk, step, strict=True)]
        rounds[way] = each
        seconds = "".join(f"{statistics.median(each[column]):>13.3f} s" for column in columns)
        peaks = [found[work][way][1] for work in WORKS[1:]]
        yield f"{way:>10}{seconds}{peaks[0]:>12.2f} GB,{peaks[1]:>6.2f} GB"
    for way in list(rounds)[1:]:
        ratios = [
            statistics.median(
                r / o for r, o in zip(rounds[REFERENCE][column], rounds[way][column], strict=True)
            )
            for column in columns
        ]
        times = "".join(f"{ratio:>14.2f}x" for ratio in ratios)
        memory = [found[work][REFERENCE][1] / found[work][way][1] for work in WORKS[1:]]
        yield f"reference / {way}"
        yield f"{'':>10}{times}{memory[0]:>13.2f}x, {memory[1]:>6.2f}x"
    for way, each in rounds.items():
        step = statistics.median(each["training step"])
        yield f"{way}: {batch / step:.2f} images/s in training steps"


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, help="default: full on a GPU, else reduced")
    parser.add_argument("--batch-size", type=int, help="default: 8, reduced 4")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    chosen = options()
    on_gpu = torch.cuda.is_available()
    size = chosen.size or ("full" if on_gpu else "reduced")
    config, batch = SIZES[size], chosen.batch_size or (8 if size == "full" else 4)
    names = [REFERENCE, OURS, *([OURS_BF16] if on_gpu else [])]
    where = torch.cuda.get_device_name() if on_gpu else f"CPU threads: {torch.get_num_threads()}"
    print(
        f"{size} size: {config.width} wide, {config.image_size} px in patches of "
        f"{config.patch_size}; batches of {batch}; {where}"
    )
    print(f"largest difference between the two ways' scores: {difference(config):.1e} of their sd")
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(Path(folder), config)
        with ExitStack() as stack:
            ways = {way: stack.enter_context(started(way, config, files)) for way in names}
            # In this order each work needs more memory than those before it.
            found = {work: in_turn(ways, work, batch, chosen.rounds) for work in WORKS}
        print("\n".join(table(found, batch)))
        for way in names if on_gpu else []:
            best, speed, memory = best_batch(way, config, files, batch)
            print(f"{way} at its best batch, {best}: {speed:.1f} images/s, {memory:.1f} GB")


if __name__ == "__main__":
    main()
