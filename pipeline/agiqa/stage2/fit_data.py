"""What a run is fitted on or measured on: table, splits and features, of one data set or several.

Reads what lies under `cache/`. Several data sets are joined as one (`join`): trained together, each
on its own scale, without each other's leaks.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from agiqa.core.errors import AgiqaError, some
from agiqa.core.params import Fit, Params, Semantic, Visual
from agiqa.data.datasets.groups import Relatives
from agiqa.data.datasets.origin import require_fresh
from agiqa.data.datasets.table import ImagesTable, find_target, read_table
from agiqa.data.splits.files import leaks, read_protocol, side_rows, split_digest
from agiqa.data.splits.protocols import SIDES, default_protocol
from agiqa.stage2.features import Features, Sides, Targets, load_features, require_same_stores
from agiqa.stage2.paper.inputs import load_paper_inputs
from agiqa.stage2.predictors import AnyInputs
from agiqa.stage2.presets import LIGHT, TUNED
from agiqa.stage2.training.epochs import start_processes
from agiqa.stage2.tuned.inputs import load_tuned_inputs
from agiqa.store import ANSWERS, TAIL, TOKENS, pack_beside
from agiqa.store.packs.pack import at_hand

log = logging.getLogger(__name__)

GROUPED = "grouped"  # the protocol that keeps groups on one side, of one data set or several


@dataclass(frozen=True)
class RatedData:
    """One data set: its rated images, and who trains, validates and is tested."""

    table: ImagesTable
    splits: pd.DataFrame  # of images of the table that have the scores
    digest: str  # of the whole split file
    protocol: str
    columns: tuple[str, ...]  # of the targets, as the table calls them

    @property
    def name(self) -> str:
        """Give the data set's name."""
        return self.table.name

    @cached_property
    def sides(self) -> Sides:
        """Row numbers of the table by seed and side."""
        return side_rows(self.splits, self.table)

    @cached_property
    def relatives(self) -> Relatives:
        """Which of its images are akin to others."""
        return Relatives(self.table.frame)

    @property
    def mos(self) -> np.ndarray:
        """Scores `(N, T)`; nan where one is not known."""
        return self.table.frame[list(self.columns)].to_numpy(dtype=np.float64)

    @cached_property
    def scores_sha256(self) -> str:
        """A sha256 of the scores that each image has."""
        rows = self.table.frame[["image_id", "path", *self.columns]].sort_values("path")
        return hashlib.sha256(rows.to_csv(index=False, lineterminator="\n").encode()).hexdigest()

    @property
    def description(self) -> dict[str, Any]:
        """What a run's provenance says of it: scores, splits with their digest, and their leaks."""
        table, target = self.table, self.columns[0]
        scores = table.frame[target]
        return {
            "dataset": table.name,
            "synthetic": table.synthetic,
            "licence": table.licence,
            "source": table.source,
            "images": len(table.frame),
            "target": target,
            "targets": list(self.columns),
            "protocol": self.protocol,
            "seeds": [int(seed) for seed in self.splits["seed"].unique()],
            "mos": {"low": float(scores.min()), "high": float(scores.max())},
            "splits_file": f"{self.protocol}.csv",
            "splits_sha256": self.digest,
            "scores_sha256": self.scores_sha256,
            "leaks": [vars(leak) for leak in leaks(self.splits, table)],
        }

    def of(self, table: ImagesTable) -> Self:
        """The same of a table without the images that have no vectors.

        Raises:
            AgiqaError: no image of some side has a score.
        """
        return replace(self, table=table, splits=_rated_splits(self.splits, table, self.columns))


@dataclass(frozen=True)
class FitData(RatedData):
    """The same with features, ready for a fit or an evaluation."""

    features: AnyInputs  # a row for each row of the table


def load_fit_data(dataset: str, cache: Path | str, params: Params) -> FitData:
    """Table, splits and features of one data set as `params` say; `auto` becomes a protocol.

    `cache` is a folder here or a URL, which is read through a copy (`at_hand`).

    Raises:
        AgiqaError: no such table, split file, store or target; a table older than what it was
            made from; or no image of some side has a score.
    """
    folder = dataset_folder(dataset, cache, params)
    rated = load_rated_data(folder, params.fit)
    table, features = _features(rated.table, folder, params)
    return FitData(**vars(rated.of(table)), features=features)


def load_rated_data(folder: Path, settings: Fit) -> RatedData:
    """Table and splits of the data set in `folder`.

    Raises:
        AgiqaError: no such table, split file or target, or a table older than what it was made
            from.
    """
    table = read_table(folder)
    columns = targets_of(settings, table)
    protocol = default_protocol(table) if settings.protocol == "auto" else settings.protocol
    require_fresh(table, folder, protocol)
    splits = read_protocol(folder, table, protocol)
    return RatedData(table, splits, split_digest(splits), protocol, columns)


def dataset_folder(dataset: str, cache: Path | str, params: Params) -> Path:
    """The folder of a data set on this machine, with the packs that the preset reads."""
    return at_hand(cache, dataset, _packs(params)) / dataset


def targets_of(settings: Fit, table: ImagesTable) -> tuple[str, ...]:
    """The columns that `fit.target` names, one or several with commas between.

    Raises:
        AgiqaError: the table lacks one, one is named twice, or the preset learns one only.
    """
    asked = settings.target
    if asked in [target.name for target in table.targets]:  # a comma may be part of a column's name
        return (asked,)
    names = [name.strip() for name in asked.split(",") if name.strip()]
    columns = tuple(find_target(table, name) for name in names or [asked])
    if len(set(columns)) < len(columns):
        raise AgiqaError(f"fit.target names a target of '{table.name}' twice: {asked}.")
    if len(columns) > 1 and settings.preset != LIGHT:
        raise AgiqaError(
            f"The preset {settings.preset} learns one target, found {', '.join(columns)}: give "
            f"one, or --preset {LIGHT}."
        )
    return columns


def _packs(params: Params) -> list[str]:
    """Names of the packs that the preset reads."""
    semantic = f"{params.semantic.name}.{params.semantic.format}"
    visual = f"{params.visual.name}.{params.visual.format}"
    match params.fit.preset:
        case preset if preset == LIGHT:
            answers = [pack_beside(Path(semantic), ANSWERS).name] if params.fit.answers else []
            return [semantic, visual, *answers]
        case preset if preset == TUNED:
            tokens = pack_beside(Path(visual), TOKENS).name
            return [semantic, visual, tokens, f"{params.visual.name}{TAIL}"]
    return [semantic]


def store_path(table: ImagesTable, folder: Path, settings: Semantic | Visual) -> Path:
    """The data set's pack of these settings; AgiqaError where there is none."""
    store = folder / f"{settings.name}.{settings.format}"
    if not store.exists():
        raise AgiqaError(f"No feature store {store}; run `agiqa extract {table.name}`.")
    return store


def _rated_splits(splits: pd.DataFrame, table: ImagesTable, columns: Sequence[str]) -> pd.DataFrame:
    """The splits of the images that have vectors and all of the scores.

    Raises:
        AgiqaError: no image of some side has them.
    """
    splits = splits[splits["name"].isin(table.frame["path"])]
    missing = table.frame[list(columns)].isna()
    unknown = splits["name"].isin(table.frame["path"][missing.any(axis=1)])
    if not unknown.any():
        return splits
    scored = splits[~unknown]
    for seed, side in splits[["seed", "side"]].drop_duplicates().itertuples(index=False):
        if not ((scored["seed"] == seed) & (scored["side"] == side)).any():
            raise AgiqaError(
                f"No image on the {side} side of split {seed} has a score '{columns[0]}', which "
                f"'{table.name}' keeps to itself for {missing[columns[0]].sum()} "
                "images: choose another --protocol."
            )
    log.warning(
        "%d images have no score '%s' and are left out of training and metrics",
        splits["name"][unknown].nunique(),
        "' or '".join(columns),
    )
    return scored


def _features(table: ImagesTable, folder: Path, params: Params) -> tuple[ImagesTable, AnyInputs]:
    """The table without what `extract --skip-bad` left out, and what the preset sees of it."""
    semantic, patterns = store_path(table, folder, params.semantic), params.fit.vectors
    if params.fit.preset == LIGHT:
        visual = store_path(table, folder, params.visual)
        return load_features(table, semantic, visual, patterns, params.fit.answers)
    if params.fit.answers:
        raise AgiqaError(
            f"fit.answers is for the preset {LIGHT}: {params.fit.preset} takes semantic vectors "
            "and no more. Set it to false."
        )
    if params.fit.preset == TUNED:
        visual = store_path(table, folder, params.visual)
        return load_tuned_inputs(table, semantic, visual, pack_beside(visual, TOKENS), patterns)
    with start_processes().main_process_first():  # the first one decodes the images for all
        size, workers = params.paper.network.image_size, params.paper.workers
        return load_paper_inputs(table, semantic, size, workers, patterns=patterns)


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
