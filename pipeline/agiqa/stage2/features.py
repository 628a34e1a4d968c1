"""Features and targets: all that stage 2 sees of the images, a row for each row of their table.

Features are the table joined with its stores. Nothing here knows which extractor made a vector.
Byte-identical images share a row of a store, or one for each of their prompts where the store's
questions hold them.

Targets are what the images were rated: T each, on the scale of the data set that an image is of.
Several data sets keep their scales: each has its own mean and deviation on the training side, and
what is learnt is in units of those.
"""

import fnmatch
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Params
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.prompts import read_prompt_set
from agiqa.store import ANSWERS, FeatureStore, pack_beside, read_pack, require_same

log = logging.getLogger(__name__)

# Kinds of extractors whose vectors are not what a store is named after.
OTHERS = {"semantic": ("vision",), "visual": ("lmm", "mplug_owl2", "dual_encoder")}
VISUAL = "visual"  # the name of the visual expert; the others have their vectors' names

Side = Mapping[str, np.ndarray]  # row numbers of train, val and test
Sides = Mapping[int, Side]  # by split seed


@dataclass(frozen=True)
class Features:
    """One row for each row of the images table."""

    visual: np.ndarray  # (N, F) float32: the layers side by side
    semantic: np.ndarray  # (N, P, D) float32
    prompts: tuple[str, ...]  # names of the P semantic vectors; the last may be ANSWERS
    stores: Mapping[str, Any]  # what they were made by, for provenance: visual, semantic, answers

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts in the gate's order."""
        return (VISUAL, *self.prompts)

    @property
    def vectors(self) -> list[np.ndarray]:
        """The vectors of each expert: `(N, F)`, then P times `(N, D)`."""
        return [self.visual, *np.moveaxis(self.semantic, 1, 0)]


def load_features(
    table: ImagesTable,
    semantic: Path,
    visual: Path,
    patterns: Sequence[str] = (),
    answers: bool = False,
) -> tuple[ImagesTable, Features]:
    """Read the stores in bulk and align them with the table.

    Args:
        table: the images.
        semantic: the store of semantic vectors.
        visual: the store of visual vectors.
        patterns: names of the semantic vectors to take, or shell-style patterns; none: all.
        answers: whether the store of answers' probabilities, beside the semantic one, is an
            expert too.

    Returns:
        The table without the images that `extract --skip-bad` left out, and its features.

    Raises:
        AgiqaError: a store is absent, damaged or foreign, or lacks images of the table; a pattern
            matches no vector.
    """
    stores = {"semantic": read_pack(semantic), "visual": read_pack(visual)}
    chosen = choose_vectors(stores["semantic"].names, patterns, str(semantic))
    if answers:
        path = pack_beside(semantic, ANSWERS)
        if not path.exists():
            raise AgiqaError(
                f"fit.answers is true, but there is no {path}: give the prompt set `answers` "
                "(semantic.prompts) and run `agiqa extract`, or set fit.answers to false."
            )
        stores[ANSWERS] = read_pack(path)
    table = without_left_out(table, list(stores.values()))
    rows = {
        kind: store.rows(store.row_ids(table)).astype(np.float32) for kind, store in stores.items()
    }
    vectors = rows["semantic"][:, chosen]
    described = {kind: describe_store(store) for kind, store in stores.items()}
    described["semantic"] = describe_store(stores["semantic"], chosen)
    names = tuple(described["semantic"]["names"])
    features = Features(
        visual=rows["visual"].reshape(len(table.frame), -1),
        semantic=with_answers(vectors, rows[ANSWERS]) if answers else vectors,
        prompts=(*names, ANSWERS) if answers else names,
        stores=described,
    )
    return table, features


def without_left_out(table: ImagesTable, stores: Sequence[FeatureStore]) -> ImagesTable:
    """The table without the images that `extract --skip-bad` left out of one of the stores."""
    absent = np.zeros(len(table.frame), dtype=bool)
    for store in stores:
        absent |= np.isin(store.row_ids(table), list(store.left_out))
    return leave_out(table, absent)


def leave_out(table: ImagesTable, absent: np.ndarray) -> ImagesTable:
    """Drop the images `absent` `(N,)` from the table, with a warning: they have no vectors."""
    if not absent.any():
        return table
    log.warning("%d images have no vectors and are left out, as extract was told", absent.sum())
    return replace(table, frame=table.frame[~absent].reset_index(drop=True))


def choose_vectors(names: Sequence[str], patterns: Sequence[str], where: str) -> list[int]:
    """Which of the vectors `fit.vectors` names, in the store's order; all where it is empty.

    Raises:
        AgiqaError: a pattern matches none of them; `where` begins the message.
    """
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise AgiqaError(
                f"{where}: fit.vectors names '{pattern}', which matches none of its vectors: "
                f"{', '.join(names)}."
            )
    return [
        index
        for index, name in enumerate(names)
        if not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    ]


def with_answers(vectors: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Semantic vectors `(N, P, D)` and one more, of all the answers' probabilities `(N, Q, K)`.

    Zeros fill up whichever is narrower; they are constant, so that no regressor sees them.
    """
    flat = answers.reshape(len(answers), 1, -1)
    width = max(vectors.shape[-1], flat.shape[-1])
    widened = [np.pad(a, ((0, 0), (0, 0), (0, width - a.shape[-1]))) for a in (vectors, flat)]
    return np.concatenate(widened, axis=1)


def describe_store(store: FeatureStore, chosen: Sequence[int] | None = None) -> dict[str, Any]:
    """Extractor, vector names and fingerprints, as a run's provenance keeps them.

    Args:
        store: a pack.
        chosen: the places of the vectors that are used; by default all.
    """
    indices = range(len(store.names)) if chosen is None else chosen
    return {
        "extractor": store.extractor,
        "names": [store.names[index] for index in indices],
        "fingerprints": [dict(store.fingerprints[index]) for index in indices],
    }


def require_same_stores(trained: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse features made in another way than those a run was trained on.

    Raises:
        AgiqaError: names the store, the field and both values.
    """
    for kind, made in trained.items():
        other = given[kind]
        if list(made["names"]) != list(other["names"]):
            raise AgiqaError(
                f"The run was trained on the {kind} vectors {', '.join(made['names'])}, but the "
                f"store holds {', '.join(other['names'])}: use the run's own params.yaml, or fit "
                "again."
            )
        for name, own_print, other_print in zip(
            made["names"], made["fingerprints"], other["fingerprints"], strict=True
        ):
            require_same(
                own_print,
                other_print,
                where=f"{kind} vector '{name}'",
                advice="the run was trained on other features: use its params.yaml, or fit again",
            )


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
                same = {key: value for key, value in prompt.items() if key != "reply"}
                reply = {"reply": prompts.reply} if prompts.reply else {}
                wanted["prompt"] = {**same, "text": text, "template": prompts.template, **reply}
            require_same(
                wanted,
                made,
                where=f"the {kind} store's vector '{name}'",
                advice="run `agiqa extract` with these settings, or give `fit` those of the store",
            )


@dataclass(frozen=True)
class Targets:
    """One row for each row of the features."""

    mos: np.ndarray  # (N, T) float64
    names: tuple[str, ...]  # of the T targets
    datasets: tuple[str, ...]  # names of the D data sets
    dataset_of: np.ndarray  # (N,) int: which of them each image is of
    groups: np.ndarray | None = None  # (N,) int: which group, such as a prompt; None: not known

    def among(self, rows: np.ndarray) -> np.ndarray | None:
        """Tell which data set the images `rows` are of; None where there is but one."""
        return self.dataset_of[rows] if len(self.datasets) > 1 else None

    def held_apart(self, train: np.ndarray, val: np.ndarray) -> np.ndarray | None:
        """Groups of the images `train` where none of them has images in `val`, as in testing then.

        None: groups are not held apart, or there are none.
        """
        if self.groups is None or np.isin(self.groups[val], self.groups[train]).any():
            return None
        return np.asarray(self.groups[train])


@dataclass(frozen=True)
class Scales:
    """Each data set's mean and deviation of each target, on a training side."""

    mean: np.ndarray  # (D, T)
    sd: np.ndarray  # (D, T)

    @classmethod
    def of(cls, targets: Targets, rows: np.ndarray) -> Self:
        """Measure the images `rows`, which each data set must have some of."""
        own = [
            targets.mos[rows[targets.dataset_of[rows] == d]] for d in range(len(targets.datasets))
        ]
        return cls(
            np.stack([mos.mean(axis=0) for mos in own]), np.stack([mos.std(axis=0) for mos in own])
        )

    def standardise(self, mos: np.ndarray, dataset_of: np.ndarray) -> np.ndarray:
        """MOS `(n, T)` of images of the data sets `(n,)`, in units of their deviations."""
        return np.asarray((mos - self.mean[dataset_of]) / self.sd[dataset_of])

    def restore(self, score: np.ndarray, dataset: int) -> np.ndarray:
        """Scores `(..., T)` in those units, on the scale of one data set."""
        return np.asarray(score * self.sd[dataset] + self.mean[dataset])


def require_images(targets: Targets, sides: Sides, least: Mapping[str, int], why: str = "") -> None:
    """Refuse splits with fewer images of a side than `least`, or whose scores are all the same.

    Of each data set, where there are several.

    Raises:
        AgiqaError: names the split; `why` ends the message of too few.
    """
    for seed, side in sides.items():
        for number, dataset in enumerate(targets.datasets):
            split = f"split {seed}" + (f" of '{dataset}'" if len(targets.datasets) > 1 else "")
            own = {name: side[name][targets.dataset_of[side[name]] == number] for name in least}
            for name, count in least.items():
                if len(own[name]) < count:
                    raise AgiqaError(
                        f"S{split[1:]} has {len(own[name])} {name} images; fit needs at least "
                        f"{count}{why}."
                    )
            for column, target in enumerate(targets.names):
                if float(np.ptp(targets.mos[own["train"], column])) == 0:
                    raise AgiqaError(
                        f"All training images of {split} have the same score '{target}'."
                    )
