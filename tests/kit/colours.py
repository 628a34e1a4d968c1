"""An extractor without torch: for tests of what carries vectors, not of what makes them."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from agiqa.stage1.extractors import Recipe, Sample, Vector
from agiqa.stage1.extractors.contract import batch

NOTES = "AGIQA_TEST_BATCHES"  # names a file in which each batch is noted, for tests that kill
STATISTICS = {"mean": np.mean, "std": np.std}


class Colours:
    """Two vectors of three numbers: each colour's mean, and its standard deviation."""

    name, batch_size, precision = "colours", 4, "float16"

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds  # that a batch takes
        self.vectors = tuple(Vector(of, {"extractor": "colours", "of": of}, 3) for of in STATISTICS)

    def preprocess(self, image: Image.Image, image_prompt: str | None = None) -> Sample:
        return Sample({"pixels": np.asarray(image, dtype=np.float32)[None]}, image.size)

    def extract(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        with Path(os.environ[NOTES]).open("a") as notes:
            notes.write(f"{os.getpid()}\n")
        time.sleep(self.seconds)
        pixels = batch(samples)["pixels"]
        made = [statistic(pixels, axis=(1, 2)) for statistic in STATISTICS.values()]
        return [made[index] for index in wanted]

    def recipe(self) -> Recipe:
        return Recipe(Colours, (self.seconds,))
