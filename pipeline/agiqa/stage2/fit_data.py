"""What a run is fitted on or measured on: table, splits and features of one data set.

Joins what lies under `cache/`; `joining` makes one of several.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Fit, Params, Semantic, Visual
from agiqa.data.datasets.groups import Relatives
from agiqa.data.datasets.origin import require_fresh
from agiqa.data.datasets.table import ImagesTable, find_target, read_table
from agiqa.data.splits.files import read_protocol, side_rows, split_digest
from agiqa.data.splits.protocols import default_protocol
from agiqa.stage2.features import load_features
from agiqa.stage2.paper.inputs import load_paper_inputs
from agiqa.stage2.predictors import AnyInputs
from agiqa.stage2.presets import LIGHT, TUNED
from agiqa.stage2.targets import Sides
from agiqa.stage2.training.epochs import start_processes
from agiqa.stage2.tuned.inputs import load_tuned_inputs
from agiqa.store import ANSWERS, TAIL, TOKENS, pack_beside
from agiqa.store.packs.pack import at_hand

log = logging.getLogger(__name__)


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
