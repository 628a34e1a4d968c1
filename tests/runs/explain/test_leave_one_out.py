"""Leaving a patch out of the pool is exact: the same as pooling the others."""

import numpy as np
import pytest

from agiqa.runs.explain.leave_one_out import changes


@pytest.mark.parametrize("pools", [("cls", "mean", "std"), ("std", "mean"), ("mean",)])
def test_equals_pooling_the_other_patches(pools: tuple[str, ...]) -> None:
    patches = np.random.default_rng(0).normal(3, 2, (9, 5)).astype(np.float32)
    whole = {"cls": np.zeros(5), "mean": patches.mean(axis=0), "std": patches.std(axis=0, ddof=1)}
    for gone, found in enumerate(changes(patches, pools)):
        rest = np.delete(patches, gone, axis=0)
        ours = {"cls": np.zeros(5), "mean": rest.mean(axis=0), "std": rest.std(axis=0, ddof=1)}
        expected = np.concatenate([ours[pool] - whole[pool] for pool in pools])
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_equal_patches_change_nothing() -> None:
    found = changes(np.full((4, 3), 2.5, dtype=np.float32), ("mean", "std"))
    np.testing.assert_array_equal(found, np.zeros((4, 6)))
