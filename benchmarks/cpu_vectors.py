"""What vectors cost on a CPU: by view, by type of weights, and with the tower's pass shared.

    python benchmarks/cpu_vectors.py FOLDER

Processor seconds an image of nano, one thread, batches of 8, all ways by turns over the same images
of the folder; decoding not counted. Beside them the smallest cosine with float32's vectors, and how
much of its largest number a vector changes by when its image is computed alone. torch's dynamic
quantisation and torchao, where it is installed, stand beside our int8. Last, the default's three
passes on all cores, with memory kept as agiqa keeps it and handed back as glibc does.
"""

import importlib.util
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from agiqa.core.params import Semantic, Visual
from agiqa.data.datasets.folder import find_images
from agiqa.data.images import decode
from agiqa.stage1.extractors import Extractor, VisionExtractor, loading, semantic_extractor
from agiqa.stage1.extractors.image_text import shared_tower

IMAGES, ROUNDS = 8, 3
BATCH = 16  # images, as the settings come
KEPT, HANDED_BACK = "kept", "handed back"  # what becomes of freed memory
SMALL = {"image_size": 224, "closeup": 0}


def of_type(dtype: str) -> dict[str, Extractor]:
    """Make the extractors by what they look at."""
    lmm = semantic_extractor(Semantic(dtype=dtype, batch_size=IMAGES))
    small = VisionExtractor(Visual(**SMALL, dtype=dtype, batch_size=IMAGES))
    close = VisionExtractor(Visual(dtype=dtype, batch_size=IMAGES))
    large = {"image_size": 336, "dtype": dtype}
    views: dict[str, Extractor | None] = {
        "224 px": small,
        "336 px": VisionExtractor(Visual(closeup=0, **large)),
        "336 px and close-up": VisionExtractor(Visual(**large)),
        "questions": lmm,
        "questions and 224 px": shared_tower(lmm, small),
        "questions, 224 px and close-up": shared_tower(lmm, close),
    }
    return {name: extractor for name, extractor in views.items() if extractor}


def others() -> dict[str, VisionExtractor]:
    """Make the tower at 224 px in other people's int8, and in bfloat16."""
    from torch.ao.quantization import quantize_dynamic

    ways = {name: VisionExtractor(Visual(**SMALL)) for name in ("torch dynamic", "torchao")}
    ways["torch dynamic"].load()
    ways["torch dynamic"].tower = quantize_dynamic(
        ways["torch dynamic"].tower, {torch.nn.Linear}, dtype=torch.qint8
    )
    if importlib.util.find_spec("torchao") is None:
        del ways["torchao"]
    else:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

        ways["torchao"].load()
        quantize_(ways["torchao"].tower, Int8DynamicActivationInt8WeightConfig())
    return ways | {"bfloat16": VisionExtractor(Visual(**SMALL, dtype="bfloat16"))}


def apart(rows: list[np.ndarray], exact: list[np.ndarray]) -> float:
    """Give the smallest cosine of any row `(B, D)` with its exact one."""
    return min(
        float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())
        for a, b in zip(rows, exact, strict=True)
    )


def moved(extractor: Extractor, samples: list, rows: list[np.ndarray]) -> float:
    """Give what the first image's vectors change by, of their largest number, when it is alone."""
    alone = extractor.extract(samples[:1], range(len(extractor.vectors)))
    return max(
        float(np.abs(a[0] - b[0]).max() / np.abs(b[0]).max())
        for a, b in zip(alone, rows, strict=True)
    )


def time_default(folder: Path, memory: str) -> None:
    """Print seconds an image of the default's three passes, on all cores, in this process.

    Args:
        folder: of images.
        memory: KEPT, or HANDED_BACK as glibc does unless told otherwise.
    """
    if memory == HANDED_BACK:
        loading.keep_freed_memory = lambda: None
    lmm = semantic_extractor(Semantic(batch_size=BATCH))
    extractor = shared_tower(lmm, VisionExtractor(Visual(batch_size=BATCH)))
    assert extractor is not None
    samples = [extractor.preprocess(image) for image in some_images(folder, BATCH)]
    seconds = []
    for _ in range(ROUNDS + 1):  # the first one loads
        started = time.perf_counter()
        extractor.extract(samples, range(len(extractor.vectors)))
        seconds.append((time.perf_counter() - started) / BATCH)
    print(statistics.median(seconds[1:]))


def compare_memory(folder: Path) -> None:
    """Print what becomes of freed memory against seconds an image, in processes by turns."""
    seconds: dict[str, list[float]] = {HANDED_BACK: [], KEPT: []}
    for _ in range(ROUNDS):
        for memory, times in seconds.items():
            command = [sys.executable, __file__, str(folder), memory]
            child = subprocess.run(command, check=True, capture_output=True, text=True)
            times.append(float(child.stdout))
    medians = {memory: statistics.median(times) for memory, times in seconds.items()}
    for memory, median in medians.items():
        print(f"memory {memory:12} {median:.2f} s an image, {medians[HANDED_BACK] / median:.2f}")


def some_images(folder: Path, count: int) -> list[Image.Image]:
    """Decode `count` images from all over the folder."""
    paths = find_images(folder)
    return [decode(path) for path in paths[:: len(paths) // count][:count]]


def main(folder: Path) -> None:
    """Print a line a way."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    images = some_images(folder, IMAGES)
    ways: dict[tuple[str, str], Extractor] = {
        (view, dtype): way for dtype in ("float32", "int8") for view, way in of_type(dtype).items()
    }
    ways |= {("224 px", name): way for name, way in others().items()}
    samples = {key: [way.preprocess(image) for image in images] for key, way in ways.items()}
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in ways}
    vectors: dict[tuple[str, str], list[np.ndarray]] = {}
    for turn in range(ROUNDS + 1):
        for key, way in ways.items():
            started = time.process_time()
            vectors[key] = way.extract(samples[key], range(len(way.vectors)))
            if turn:  # the first one loads
                seconds[key].append((time.process_time() - started) / IMAGES)
    medians = {key: statistics.median(times) for key, times in seconds.items()}
    print(f"{'':31} {'weights':14} s an image  faster  cosine  alone", flush=True)
    for (view, dtype), median in medians.items():
        exact = (view, "float32")
        cosine = apart(vectors[view, dtype], vectors[exact])
        change = moved(ways[view, dtype], samples[view, dtype], vectors[view, dtype])
        print(
            f"{view:31} {dtype:14} {median:10.2f}  {medians[exact] / median:6.2f}  "
            f"{cosine:6.4f}  {change:.0e}",
            flush=True,
        )
    compare_memory(folder)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        time_default(Path(sys.argv[1]), sys.argv[2])
    else:
        main(Path(sys.argv[1]))
