"""What one pass of the vision tower saves where semantic and visual vectors can share it.

    python benchmarks/shared_tower.py FOLDER

Processor time an image of nano's two questions, of its tower at 224 pixels, and of both in one
pass, over 32 images of the folder, side by side; the vectors of both ways are equal to the bit.
"""

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from agiqa.core.params import Semantic, Visual
from agiqa.data.datasets.folder import find_images
from agiqa.data.images import decode
from agiqa.stage1.extractors import VisionExtractor, semantic_extractor
from agiqa.stage1.extractors.shared_tower import shared_tower

IMAGES, ROUNDS = 32, 3


def main(folder: Path) -> None:
    """Print seconds of processor time an image, and the ratio."""
    torch.set_num_threads(1)
    lmm, tower = semantic_extractor(Semantic()), VisionExtractor(Visual(image_size=224, closeup=0))
    both = shared_tower(lmm, tower)
    assert both is not None
    images = [decode(path) for path in find_images(folder)[:IMAGES]]
    extractors = {"semantic": lmm, "visual": tower, "in one pass": both}
    samples = {name: [own.preprocess(i) for i in images] for name, own in extractors.items()}
    seconds: dict[str, list[float]] = {name: [] for name in extractors}
    vectors: dict[str, list[np.ndarray]] = {}
    for turn in range(ROUNDS + 1):
        for name, own in extractors.items():
            started = time.process_time()
            size, wanted = own.batch_size, range(len(own.vectors))
            parts = [
                own.extract(samples[name][row : row + size], wanted)
                for row in range(0, IMAGES, size)
            ]
            vectors[name] = [np.concatenate(rows) for rows in zip(*parts, strict=True)]
            if turn:  # the first one loads
                seconds[name].append((time.process_time() - started) / IMAGES)
    for rows, apart in zip(
        vectors["in one pass"], vectors["semantic"] + vectors["visual"], strict=True
    ):
        assert np.array_equal(rows, apart)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"{name:12} {median:.2f} s an image")
    apart = medians["semantic"] + medians["visual"]
    print(f"in one pass / one after the other: {medians['in one pass'] / apart:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
