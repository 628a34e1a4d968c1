"""The real extractor, slowed down, which notes its batches in a file: for tests that kill."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agiqa.stage1.extractors import ImageTextExtractor, Sample

NOTES = "AGIQA_TEST_BATCHES"  # names the file


class SlowExtractor(ImageTextExtractor):
    """Takes a while for each batch."""

    def extract(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        with Path(os.environ[NOTES]).open("a") as notes:
            notes.write(f"{os.getpid()}\n")
        time.sleep(0.3)
        return super().extract(samples, wanted)
