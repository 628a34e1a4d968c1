"""Image ids and vectors for the tests of the feature store, which any process can make again."""

import hashlib

import numpy as np


def make_ids(count: int, salt: str = "") -> list[str]:
    return [hashlib.sha256(f"{salt}{row}".encode()).hexdigest() for row in range(count)]


def make_vectors(count: int, *shape: int, dtype: str = "float16", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(dtype)
