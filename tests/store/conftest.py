"""Fixtures of the feature store's tests: image ids and vectors that any process can make again."""

from collections.abc import Callable

import numpy as np
import pytest

from kit import stored_rows


@pytest.fixture(scope="session")
def make_ids() -> Callable[..., list[str]]:
    return stored_rows.make_ids


@pytest.fixture(scope="session")
def make_vectors() -> Callable[..., np.ndarray]:
    return stored_rows.make_vectors
