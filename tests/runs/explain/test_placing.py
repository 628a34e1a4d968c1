"""Sums are kept, and a view's part of the image gets its values."""

import numpy as np

from agiqa.runs.explain.placing import placed


def test_the_same_grid_is_itself() -> None:
    values = np.arange(16.0).reshape(4, 4)
    np.testing.assert_allclose(placed(values, (0, 0, 1, 1), 4), values, atol=1e-12)


def test_a_close_up_fills_its_box_and_keeps_its_sum() -> None:
    values = np.random.default_rng(0).normal(size=(5, 5))
    found = placed(values, (0.25, 0.25, 0.75, 0.75), 8)
    np.testing.assert_allclose(found.sum(), values.sum())
    outside = np.ones((8, 8), dtype=bool)
    outside[2:6, 2:6] = False
    np.testing.assert_array_equal(found[outside], 0)
    one = np.zeros((5, 5))
    one[0, 4] = 1  # upper right
    assert np.unravel_index(placed(one, (0.25, 0.25, 0.75, 0.75), 8).argmax(), (8, 8)) == (2, 5)
