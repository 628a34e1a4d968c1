"""What stage 1 asks of an extractor, whatever model stands behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Vector:
    """One vector an extractor makes of every image: a prompt's, or a layer's.

    `fingerprint` holds everything that changes its numbers and nothing else; it alone decides
    whether a cached row may be reused.
    """

    name: str
    fingerprint: Mapping[str, object]
    width: int = 0  # D
    store: str = ""  # the pack it belongs to: "" the extractor's own, "answers" the one beside it
    asks_image_prompt: bool = False  # its text holds the image's generation prompt


class Extractor(Protocol):
    """Turns images into `(B, P, D)`: P named vectors of width D for each of B images."""

    @property
    def name(self) -> str:
        """Of the store: `cache/<dataset>/<name>.zarr`."""

    @property
    def vectors(self) -> tuple[Vector, ...]:
        """The P vectors, in order."""

    @property
    def width(self) -> int:
        """D, the same for all vectors."""

    @property
    def batch_size(self) -> int:
        """B, always: a batch that is not full is filled up by repetition."""

    @property
    def precision(self) -> str:
        """Of the stored vectors: float16 or float32; part of the fingerprint."""

    def preprocess(self, image: Image.Image, image_prompt: str | None = None) -> np.ndarray:
        """RGB image to pixels `(3, H, W)` as `extract` takes them; called in worker threads."""

    def extract(self, pixels: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
        """Pixels `(B, 3, H, W)` to float32 `(B, len(wanted), D)`, for those of the P vectors."""
