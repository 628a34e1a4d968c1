"""Groups count as held apart where the validation side holds them apart."""

import numpy as np

from agiqa.stage2.features import Targets


def test_groups_are_held_apart_or_not() -> None:
    groups = np.array([0, 0, 1, 1, 2, 2])
    targets = Targets(np.zeros((6, 1)), ("quality",), ("one",), np.zeros(6, int), groups)
    train = np.array([0, 1, 3])
    apart = targets.held_apart(train, np.array([4, 5]))
    assert apart is not None
    assert apart.tolist() == [0, 0, 1]
    assert targets.held_apart(train, np.array([2, 5])) is None
    unknown = Targets(np.zeros((6, 1)), ("quality",), ("one",), np.zeros(6, int))
    assert unknown.held_apart(train, np.array([4, 5])) is None
