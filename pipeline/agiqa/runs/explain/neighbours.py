"""The rated images of the data set that look most alike.

Alike: the cosine of the visual features, each standardised over the data set. The features come
straight from the pack, block by block, so 20,000 images need no second copy in memory.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from agiqa.store import FeatureStore

BLOCK = 512  # images at a time
SAME = 0.9999  # cosine above which a picture without a file is taken for the image itself


class Alikeness:
    """Cosines to the N images of a pack of visual features."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store

    def cosines(self, visual: np.ndarray) -> np.ndarray:
        """Of vectors `(B, F)` to the pack's images `(B, N)`."""
        mean, scale, norms = self._moments
        off = (visual - mean) / scale
        off /= np.linalg.norm(off, axis=1, keepdims=True) + 1e-12
        weighted = off / scale
        dots = np.concatenate([weighted @ block.T for block in self._blocks()], axis=1)
        return np.asarray((dots - (weighted @ mean)[:, None]) / norms)

    @cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean and deviation `(F,)`, and the norms `(N,)` of the standardised vectors."""
        count = len(self.store.image_ids)
        mean = np.sum([block.sum(axis=0, dtype=np.float64) for block in self._blocks()], axis=0)
        mean = (mean / count).astype(np.float32)
        squares = [np.square(block - mean).sum(axis=0) for block in self._blocks()]
        scale = np.sqrt(np.sum(squares, axis=0) / count) + 1e-6
        norms = [np.linalg.norm((block - mean) / scale, axis=1) for block in self._blocks()]
        return mean, scale, np.concatenate(norms) + 1e-12

    def _blocks(self) -> Iterator[np.ndarray]:
        vectors = self.store.vectors
        for start in range(0, len(vectors), BLOCK):
            rows = vectors[start : start + BLOCK].astype(np.float32)
            yield rows.reshape(len(rows), -1)


def nearest(
    cosines: np.ndarray, ids: Sequence[str], allowed: np.ndarray, own: str | None, count: int
) -> list[int]:
    """Places of the `count` most alike images, most alike first.

    Args:
        cosines: `(N,)`.
        ids: of the N images.
        allowed: which may be shown `(N,)`.
        own: the image's own id; None where it has no file: what equals it is left out then.
        count: how many.
    """
    itself = cosines > SAME if own is None else np.array([each == own for each in ids])
    ranked = np.argsort(np.where(allowed & ~itself, -cosines, np.inf), kind="stable")
    return [int(place) for place in ranked[:count] if allowed[place] and not itself[place]]
