"""Features: the rows of an images table joined with its stores; all that stage 2 sees.

Nothing here knows which extractor made a vector. Byte-identical images share a row of a store, or
one for each of their prompts where the store's questions hold them.
"""

import fnmatch
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
        stores[ANSWERS] = _read_answers(semantic)
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
