"""What a run is made from and measured on: tables, splits and features of one data set or several.

Joins what lies under `cache/`; between the stores and `training`, `evaluation`.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agiqa.core.errors import AgiqaError, some
from agiqa.core.params import Fit, Params, Semantic, Visual
from agiqa.data.datasets.groups import Relatives
from agiqa.data.datasets.origin import require_fresh
from agiqa.data.datasets.table import ImagesTable, read_table
from agiqa.data.datasets.targets import find_target
from agiqa.data.prompts import read_prompt_set
from agiqa.data.splits import default_protocol, read_protocol, side_rows, split_digest
from agiqa.data.splits.sides import SIDES
from agiqa.stage2.features import Features, load_features, require_same_stores
from agiqa.stage2.paper.inputs import PaperInputs, load_paper_inputs
from agiqa.stage2.paper.training import start_processes
from agiqa.stage2.presets import LIGHT
from agiqa.stage2.targets import Truth
from agiqa.store import ANSWERS, pack_beside, require_same
from agiqa.store.cache_folder import at_hand

log = logging.getLogger(__name__)

# Kinds of extractors whose vectors are not what a store is named after.
OTHERS = {"semantic": ("vision",), "visual": ("lmm", "mplug_owl2", "dual_encoder")}

GROUPED = "grouped"  # the protocol that keeps groups on one side, of one data set or several

Sides = Mapping[int, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Material:
    """One data set, ready for a fit or an evaluation."""

    table: ImagesTable  # without what `extract --skip-bad` left out
    features: Features | PaperInputs  # a row for each row of the table
    splits: pd.DataFrame  # of the images that have vectors and scores
    digest: str  # of the whole split file
    protocol: str
    columns: tuple[str, ...]  # of the targets, as the table calls them

    @property
    def name(self) -> str:
        """The data set's."""
        return self.table.name

    @property
    def sides(self) -> Sides:
        """Row numbers of the table by seed and side."""
        return side_rows(self.splits, self.table)

    @property
    def mos(self) -> np.ndarray:
        """Scores `(N, T)`; nan where one is not known."""
        return self.table.frame[list(self.columns)].to_numpy(dtype=np.float64)


def targets_of(settings: Fit, table: ImagesTable) -> tuple[str, ...]:
    """The columns that `fit.target` names, one or several with commas between.

    Raises:
        AgiqaError: the table lacks one, one is named twice, or the preset learns one only.
    """
    asked = settings.target
    if asked in [each.name for each in table.targets]:  # a comma may be part of a column's name
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


def load_material(dataset: str, cache: Path | str, params: Params) -> Material:
    """Table, splits and features of one data set as `params` say; `auto` becomes a protocol.

    `cache` is a folder here or a URL, which is read through a copy (store/cache_folder.py).

    Raises:
        AgiqaError: no such table, split file, store or target; a table older than what it was
            made from; or no image of some side has a score.
    """
    folder = at_hand(cache, dataset, packs(params)) / dataset
    table = read_table(folder)
    columns = targets_of(params.fit, table)
    protocol = params.fit.protocol
    if protocol == "auto":
        protocol = default_protocol(table)
    require_fresh(table, folder, protocol)
    splits = read_protocol(folder, table, protocol)
    digest = split_digest(splits)
    table, features = _features(table, folder, params)
    splits = rated_splits(splits, table, columns)
    return Material(table, features, splits, digest, protocol, columns)


def packs(params: Params) -> list[str]:
    """Names of the packs that the preset reads."""
    semantic = f"{params.semantic.name}.{params.semantic.format}"
    if params.fit.preset != LIGHT:
        return [semantic]
    answers = [pack_beside(Path(semantic), ANSWERS).name] if params.fit.answers else []
    return [semantic, f"{params.visual.name}.{params.visual.format}", *answers]


def store_path(table: ImagesTable, folder: Path, settings: Semantic | Visual) -> Path:
    """The data set's pack of these settings; AgiqaError where there is none."""
    store = folder / f"{settings.name}.{settings.format}"
    if not store.exists():
        raise AgiqaError(f"No feature store {store}; run `agiqa extract {table.name}`.")
    return store


def rated_splits(splits: pd.DataFrame, table: ImagesTable, columns: Sequence[str]) -> pd.DataFrame:
    """The splits of the images that have vectors and all of the scores.

    Raises:
        AgiqaError: no image of some side has them.
    """
    splits = splits[splits["image_id"].isin(table.frame["image_id"])]
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


def joined(materials: Sequence[Material]) -> tuple[Features | PaperInputs, Truth, Sides]:
    """All data sets as one: rows in their order, split by split.

    An image of which another data set tests or validates a copy, or under `grouped` an image of
    the same group or prompt, is left out of training; one that another tests, of validation too.

    Raises:
        AgiqaError: features of several kinds, or splits that do not pair.
    """
    first = materials[0]
    if len(materials) == 1:
        of = np.zeros(len(first.table.frame), dtype=np.intp)
        return first.features, Truth(first.mos, first.columns, (first.name,), of), first.sides
    _require_alike(materials)
    rows = [len(each.table.frame) for each in materials]
    starts = np.r_[0, np.cumsum(rows)[:-1]]
    light = [each.features for each in materials if isinstance(each.features, Features)]
    features = replace(
        light[0],
        visual=np.concatenate([each.visual for each in light]),
        semantic=np.concatenate([each.semantic for each in light]),
    )
    truth = Truth(
        np.concatenate([each.mos for each in materials]),
        first.columns,
        tuple(each.name for each in materials),
        np.repeat(np.arange(len(materials)), rows),
    )
    own = [without_leaks(each, materials) for each in materials]
    _tell_shared_prompts(materials, own)
    sides = {
        seed: {
            side: np.concatenate([s[seed][side] + at for s, at in zip(own, starts, strict=True)])
            for side in SIDES
        }
        for seed in own[0]
    }
    return features, truth, sides


def without_leaks(one: Material, among: Sequence[Material]) -> Sides:
    """The sides of one data set without the images that others hold out.

    Training loses what another data set validates or tests, validation what another one tests.
    """
    others = [(other, other.sides, Relatives(other.table.frame)) for other in among
              if other is not one]  # fmt: skip
    own = Relatives(one.table.frame)
    sides: dict[int, dict[str, np.ndarray]] = {}
    dropped: dict[str, set[int]] = {"train": set(), "val": set()}
    for seed, side in one.sides.items():
        tested, selected = np.zeros((2, len(one.table.frame)), dtype=bool)
        for other, theirs, relatives in others:
            by_group = other.protocol == GROUPED
            tested |= own.of(relatives, theirs[seed]["test"], by_group)
            selected |= own.of(relatives, theirs[seed]["val"], by_group)
        held = {"train": tested | selected, "val": tested}
        sides[seed] = {name: rows[~held[name][rows]] if name in held else rows
                       for name, rows in side.items()}  # fmt: skip
        for name, mask in held.items():
            dropped[name] |= set(side[name][mask[side[name]]].tolist())
    for name, what in (("train", "training"), ("val", "validation")):
        if dropped[name]:
            paths = [str(one.table.frame["path"].iloc[row]) for row in sorted(dropped[name])]
            log.warning(
                "%d images of '%s' are left out of %s where another data set %s a copy of theirs "
                "or their group (%s)",
                len(paths),
                one.name,
                what,
                "tests or validates" if name == "train" else "tests",
                some(paths, 2),
            )
    return sides


def _tell_shared_prompts(materials: Sequence[Material], sides: Sequence[Sides]) -> None:
    """Count the test images whose prompt another data set trains on or validates with."""
    relatives = [Relatives(each.table.frame) for each in materials]
    for one, kin, own in zip(materials, relatives, sides, strict=True):
        shared = tested = 0
        for seed, side in own.items():
            seen = np.zeros(len(one.table.frame), dtype=bool)
            for other, theirs in zip(relatives, sides, strict=True):
                if other is not kin:
                    learnt = np.concatenate([theirs[seed]["train"], theirs[seed]["val"]])
                    seen |= kin.of_prompt(other, learnt)
            shared += int(seen[side["test"]].sum())
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


def _require_alike(materials: Sequence[Material]) -> None:
    """Refuse data sets that cannot be trained on together."""
    first = materials[0]
    for other in materials[1:]:
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


def _features(
    table: ImagesTable, folder: Path, params: Params
) -> tuple[ImagesTable, Features | PaperInputs]:
    """The table without what `extract --skip-bad` left out, and what the preset sees of it."""
    semantic, patterns = store_path(table, folder, params.semantic), params.fit.vectors
    if params.fit.preset == LIGHT:
        visual = store_path(table, folder, params.visual)
        return load_features(table, semantic, visual, patterns, params.fit.answers)
    if params.fit.answers:
        raise AgiqaError(
            f"fit.answers is for the preset {LIGHT}: the network of {params.fit.preset} takes two "
            "semantic vectors and no more. Set it to false."
        )
    with start_processes().main_process_first():  # the first one decodes the images for all
        size, workers = params.paper.network.image_size, params.paper.workers
        return load_paper_inputs(table, semantic, size, workers, patterns=patterns)


def require_settings(stores: Mapping[str, Any], params: Params) -> None:
    """Refuse stores that other settings made: the run could never score.

    Raises:
        AgiqaError: names the vector, the field and both values.
    """
    prompts = read_prompt_set(params.semantic.prompts)
    texts, layers = list(prompts.prompts.values()), list(params.visual.layers)
    for kind, settings in (("semantic", params.semantic), ("visual", params.visual)):
        if stores[kind]["extractor"] == "pixels":  # of the paper presets
            continue
        for name, made in zip(stores[kind]["names"], stores[kind]["fingerprints"], strict=True):
            asked = {
                "dtype": settings.dtype,
                "attention": settings.attention,
                "stored_as": settings.precision,
                "pool": list(params.visual.pool),
            }
            wanted = {field: asked.get(field, value) for field, value in made.items()}
            if made.get("extractor") in OTHERS[kind]:
                wanted["extractor"] = f"one of {kind} vectors"
            if made.get("layer", layers[0]) not in layers:
                wanted["layer"] = f"one of {layers}"
            if isinstance(prompt := made.get("prompt"), Mapping):
                text = prompt["text"] if prompt["text"] in texts else " | ".join(texts)
                wanted["prompt"] = {**prompt, "text": text, "template": prompts.template}
            require_same(
                wanted,
                made,
                where=f"the {kind} store's vector '{name}'",
                advice="run `agiqa extract` with these settings, or give `fit` those of the store",
            )
