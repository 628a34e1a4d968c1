"""Batches: filled up where rows must be the same to the bit, no larger than needed where not."""

import pytest

from agiqa.stage1.batches import in_batches
from agiqa.stage1.extractors import Sample


@pytest.mark.parametrize(
    ("count", "whole", "sizes"),
    [
        (10, True, [4, 4, 4]),
        (10, False, [4, 4, 2]),
        (1, True, [4]),
        (1, False, [1]),
        (3, False, [4]),
    ],
)
def test_the_last_batch(count: int, whole: bool, sizes: list[int]) -> None:
    samples = [(number, Sample({}, key="one shape")) for number in range(count)]
    batches = list(in_batches(samples, 4, whole=whole))
    assert [len(batch) for _, batch in batches] == sizes
    assert [name for names, _ in batches for name in names] == list(range(count))


def test_of_several_shapes_each_rest_is_filled_to_a_power_of_two() -> None:
    samples = [(number, Sample({}, key=number % 2)) for number in range(3)]
    assert [len(batch) for _, batch in in_batches(samples, 8)] == [2, 1]
