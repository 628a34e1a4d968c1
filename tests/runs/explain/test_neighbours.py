"""Cosines as numpy has them, and never the image itself."""

from pathlib import Path

import numpy as np
import pytest

from agiqa.runs.explain import rated_images
from agiqa.runs.explain.rated_images import Alikeness, nearest
from agiqa.store import FeatureStore


def _store(vectors: np.ndarray) -> FeatureStore:
    ids = tuple(f"{row:064x}" for row in range(len(vectors)))
    names = tuple(f"layer{place}" for place in range(vectors.shape[1]))
    return FeatureStore(Path("none"), "tiny", names, ({},) * len(names), ids, vectors)


def test_cosines_are_those_of_standardised_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rated_images, "BLOCK", 7)  # several blocks
    rng = np.random.default_rng(0)
    vectors = rng.normal(5, rng.uniform(0.1, 10, 6), (20, 6)).astype(np.float32).reshape(20, 2, 3)
    flat = vectors.reshape(20, 6)
    asked = rng.normal(5, 3, (3, 6)).astype(np.float32)
    off, there = ((each - flat.mean(axis=0)) / flat.std(axis=0) for each in (asked, flat))
    expected = (off @ there.T) / np.outer(
        np.linalg.norm(off, axis=1), np.linalg.norm(there, axis=1)
    )
    np.testing.assert_allclose(Alikeness(_store(vectors)).cosines(asked), expected, atol=1e-4)


def test_nearest_leaves_out_the_image_itself_and_what_is_not_rated() -> None:
    ids, cosines = ["a", "b", "c", "d"], np.array([0.2, 1.0, 0.9, 0.95])
    everyone = np.ones(4, dtype=bool)
    assert nearest(cosines, ids, everyone, "b", 2) == [3, 2]
    assert nearest(cosines, ids, everyone, "b", 9) == [3, 2, 0]
    assert nearest(cosines, ids, np.array([True, True, True, False]), "b", 2) == [2, 0]
    assert nearest(cosines, ids, everyone, "b", 0) == []
