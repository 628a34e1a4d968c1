"""The real extractor, which keeps count of what it was asked for."""

from collections.abc import Sequence

import numpy as np

from agiqa.core.params import Semantic
from agiqa.stage1.extractors import ImageTextExtractor, Sample


class Counting(ImageTextExtractor):
    def __init__(self, settings: Semantic) -> None:
        super().__init__(settings)
        self.asked: list[tuple[int, ...]] = []  # the wanted vectors of each batch
        self.seen = 0  # images

    def extract(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        self.asked.append(tuple(wanted))
        self.seen += len(samples)
        return super().extract(samples, wanted)
