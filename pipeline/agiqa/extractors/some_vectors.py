"""An extractor seen through some of its vectors: `score` computes what its run reads, no more."""

from collections.abc import Sequence
from typing import Any

from agiqa.extractors.contract import Extractor


class SomeVectors:
    """The extractor with the vectors at `places` alone, in that order."""

    def __init__(self, extractor: Extractor, places: Sequence[int]) -> None:
        self.extractor, self.places = extractor, tuple(places)
        self.name, self.width = extractor.name, extractor.width
        self.batch_size, self.precision = extractor.batch_size, extractor.precision
        self.vectors = tuple(extractor.vectors[place] for place in places)
        self.preprocess = extractor.preprocess

    def extract(self, pixels: Any, wanted: Sequence[int]) -> Any:
        """As the extractor's own; `wanted` counts these vectors."""
        return self.extractor.extract(pixels, [self.places[index] for index in wanted])
