"""An extractor seen through some of its vectors: `score` computes what its run reads, no more."""

from collections.abc import Sequence

import numpy as np

from agiqa.stage1.extractors.contract import Extractor, Sample


class SomeVectors:
    """The extractor with the vectors at `places` alone, in that order."""

    def __init__(self, extractor: Extractor, places: Sequence[int]) -> None:
        self.extractor, self.places = extractor, tuple(places)
        self.name, self.precision = extractor.name, extractor.precision
        self.batch_size = extractor.batch_size
        self.vectors = tuple(extractor.vectors[place] for place in places)
        self.preprocess = extractor.preprocess

    def extract(self, samples: Sequence[Sample], wanted: Sequence[int]) -> list[np.ndarray]:
        """As the extractor's own; `wanted` counts these vectors."""
        return self.extractor.extract(samples, [self.places[index] for index in wanted])
