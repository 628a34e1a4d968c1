"""Features: the rows of an images table joined with its stores; all that stage 2 sees.

Nothing here knows which extractor made a vector. Byte-identical images share a row.
"""

import fnmatch
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable
from agiqa.store import ANSWERS, FeatureStore, pack_beside, read_pack, require_same

log = logging.getLogger(__name__)

VISUAL = "visual"  # the name of the visual expert; the others have their vectors' names


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
        stores[ANSWERS] = _read_answers(semantic)
    left_out = frozenset().union(*(store.left_out for store in stores.values()))
    absent = table.frame["image_id"].isin(left_out)
    if absent.any():
        log.warning("%d images have no vectors and are left out, as extract was told", absent.sum())
        table = replace(table, frame=table.frame[~absent].reset_index(drop=True))
    ids = list(table.frame["image_id"])
    rows = {kind: store.rows(ids).astype(np.float32) for kind, store in stores.items()}
    said, names = rows["semantic"][:, chosen], [stores["semantic"].names[p] for p in chosen]
    described = {kind: describe_store(store) for kind, store in stores.items()}
    described["semantic"] = describe_store(stores["semantic"], chosen)
    features = Features(
        visual=rows["visual"].reshape(len(ids), -1),
        semantic=with_answers(said, rows[ANSWERS]) if answers else said,
        prompts=(*names, ANSWERS) if answers else tuple(names),
        stores=described,
    )
    return table, features


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
        place
        for place, name in enumerate(names)
        if not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    ]


def with_answers(vectors: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Semantic vectors `(N, P, D)` and one more, of all the answers' probabilities `(N, Q, K)`.

    Zeros fill up whichever is narrower; they are constant, so that no regressor sees them.
    """
    flat = answers.reshape(len(answers), 1, -1)
    width = max(vectors.shape[-1], flat.shape[-1])
    filled = [
        np.pad(each, ((0, 0), (0, 0), (0, width - each.shape[-1]))) for each in (vectors, flat)
    ]
    return np.concatenate(filled, axis=1)


def _read_answers(semantic: Path) -> FeatureStore:
    path = pack_beside(semantic, ANSWERS)
    if not path.exists():
        raise AgiqaError(
            f"fit.answers is true, but there is no {path}: give the prompt set `answers` "
            "(semantic.prompts) and run `agiqa extract`, or set fit.answers to false."
        )
    return read_pack(path)


def describe_store(store: FeatureStore, chosen: Sequence[int] | None = None) -> dict[str, Any]:
    """Extractor, vector names and fingerprints, as a run's provenance keeps them.

    Args:
        store: a pack.
        chosen: the places of the vectors that are used; by default all.
    """
    places = range(len(store.names)) if chosen is None else chosen
    return {
        "extractor": store.extractor,
        "names": [store.names[place] for place in places],
        "fingerprints": [dict(store.fingerprints[place]) for place in places],
    }


def require_same_stores(trained: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Refuse features made in another way than those a run was trained on.

    Raises:
        AgiqaError: names the store, the field and both values.
    """
    for kind in trained:
        names, others = trained[kind]["names"], found[kind]["names"]
        if list(names) != list(others):
            raise AgiqaError(
                f"The run was trained on the {kind} vectors {', '.join(names)}, but the store "
                f"holds {', '.join(others)}: use the run's own params.yaml, or fit again."
            )
        pairs = zip(trained[kind]["fingerprints"], found[kind]["fingerprints"], strict=True)
        for name, (ours, theirs) in zip(names, pairs, strict=True):
            require_same(
                ours,
                theirs,
                where=f"{kind} vector '{name}'",
                advice="the run was trained on other features: use its params.yaml, or fit again",
            )
