from collections.abc import Callable

import pytest

from agiqa.datasets.table import ImagesTable
from agiqa.errors import AgiqaError
from agiqa.splits import require_apart, shared_images


def test_the_same_file_in_two_data_sets(make_table: Callable[..., ImagesTable]) -> None:
    one = make_table(["", "", ""], ["a", "b", "c"], name="one")
    other = make_table(["", "", "", ""], ["x", "c", "y", "a"], name="other")
    assert shared_images(one, other) == [("0000.png", "0003.png"), ("0002.png", "0001.png")]
    with pytest.raises(
        AgiqaError,
        match=r"other would be tested on 2 images that one trained on, byte for byte "
        r"\(0001.png is 0002.png, 0003.png is 0000.png\): leave them out",
    ) as caught:
        require_apart(trained_on=one, tested_on=other)
    assert "\n" not in str(caught.value)


def test_two_data_sets_apart(make_table: Callable[..., ImagesTable]) -> None:
    one = make_table([""], ["a"])
    other = make_table([""], ["b"])
    assert shared_images(one, other) == []
    require_apart(one, other)
