"""Several data sets as one: trained together, each on its own scale, without each other's leaks."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agiqa.core.errors import AgiqaError, some
from agiqa.data.splits.protocols import SIDES
from agiqa.stage2.features import Features, require_same_stores
from agiqa.stage2.fit_data import FitData, RatedData
from agiqa.stage2.predictors import AnyInputs
from agiqa.stage2.targets import Sides, Targets

log = logging.getLogger(__name__)

GROUPED = "grouped"  # the protocol that keeps groups on one side, of one data set or several


def join(data: Sequence[FitData]) -> tuple[AnyInputs, Targets, Sides]:
    """All data sets as one: rows in their order, split by split.

    An image of which another data set tests or validates a copy, or under `grouped` an image of
    the same group or prompt, is left out of training; one that another tests, of validation too.

    Raises:
        AgiqaError: features of several kinds, or splits that do not pair.
    """
    first = data[0]
    counts = [len(one.table.frame) for one in data]
    targets = Targets(
        np.concatenate([one.mos for one in data]),
        first.columns,
        tuple(one.name for one in data),
        np.repeat(np.arange(len(data)), counts),
        _groups(data),
    )
    if len(data) == 1:
        return first.features, targets, first.sides
    _require_alike(data)
    features = [one.features for one in data if isinstance(one.features, Features)]
    whole = replace(
        features[0],
        visual=np.concatenate([part.visual for part in features]),
        semantic=np.concatenate([part.semantic for part in features]),
    )
    kept = [without_leaks(one, data) for one in data]
    _tell_shared_prompts(data, kept)
    starts = np.r_[0, np.cumsum(counts)[:-1]]
    sides = {
        seed: {
            side: np.concatenate([s[seed][side] + at for s, at in zip(kept, starts, strict=True)])
            for side in SIDES
        }
        for seed in kept[0]
    }
    return whole, targets, sides


def _groups(data: Sequence[FitData]) -> np.ndarray:
    """Which group each image is of `(N,)`, one data set's apart from another's."""
    names = [
        f"{number} {group}" if group else f"{number} {row} alone"
        for number, one in enumerate(data)
        for row, group in enumerate(one.table.frame["group"].fillna("").astype(str))
    ]
    return np.unique(names, return_inverse=True)[1]


def without_leaks(one: RatedData, among: Sequence[RatedData]) -> Sides:
    """The sides of one data set without the images that others hold out.

    Training loses what another data set validates or tests, validation what another one tests.
    """
    frame = one.table.frame
    sides: dict[int, dict[str, np.ndarray]] = {}
    dropped: dict[str, set[int]] = {"train": set(), "val": set()}
    for seed, side in one.sides.items():
        tested, validated = np.zeros((2, len(frame)), dtype=bool)
        for other in among:
            if other is not one:
                akin, by_group = other.relatives, other.protocol == GROUPED
                tested |= one.relatives.of(akin, other.sides[seed]["test"], by_group)
                validated |= one.relatives.of(akin, other.sides[seed]["val"], by_group)
        sides[seed] = dict(side)
        for name, held in (("train", tested | validated), ("val", tested)):
            rows = side[name]
            sides[seed][name] = rows[~held[rows]]
            dropped[name] |= set(rows[held[rows]].tolist())
    for name, what in (("train", "training"), ("val", "validation")):
        if dropped[name]:
            log.warning(
                "%d images of '%s' are left out of %s where another data set %s a copy of theirs "
                "or their group (%s)",
                len(dropped[name]),
                one.name,
                what,
                "tests or validates" if name == "train" else "tests",
                some([str(frame["path"].iloc[row]) for row in sorted(dropped[name])], 2),
            )
    return sides


def _tell_shared_prompts(data: Sequence[RatedData], kept: Sequence[Sides]) -> None:
    """Count the test images whose prompt another data set trains on or validates with."""
    for one, own_sides in zip(data, kept, strict=True):
        shared = tested = 0
        for seed, side in own_sides.items():
            known = np.zeros(len(one.table.frame), dtype=bool)
            for other, other_sides in zip(data, kept, strict=True):
                if other is not one:
                    learnt = [other_sides[seed]["train"], other_sides[seed]["val"]]
                    known |= one.relatives.of_prompt(other.relatives, np.concatenate(learnt))
            shared += int(known[side["test"]].sum())
            tested += len(side["test"])
        if shared:
            log.warning(
                "%d of %d test images of '%s' have a prompt that another data set holds for "
                "training or validation; they count (protocol %s%s)",
                shared,
                tested,
                one.name,
                one.protocol,
                ", by groups of its own" if one.protocol == GROUPED else "",
            )


def _require_alike(data: Sequence[FitData]) -> None:
    """Refuse data sets that cannot be trained on together."""
    first = data[0]
    for other in data[1:]:
        try:
            require_same_stores(first.features.stores, other.features.stores)
        except AgiqaError as error:
            raise AgiqaError(
                f"'{first.name}' and '{other.name}' have features made in different ways: {error}"
            ) from error
        if list(first.sides) != list(other.sides):
            raise AgiqaError(
                f"'{first.name}' has the splits {list(first.sides)} by the protocol "
                f"{first.protocol}, '{other.name}' {list(other.sides)} by {other.protocol}: "
                "choose a protocol with as many in each."
            )
