"""Answers to the aspects, as the cache holds them: the store, and one number an aspect.

An aspect's number is the answers' mean level under the model's probabilities, 1 for the first and
worst word to K for the last and best, as Q-Align scores images (arXiv:2312.17090).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.store import (
    ANSWERS,
    FORMATS,
    FeatureStore,
    PackError,
    pack_beside,
    read_pack,
    read_pack_metadata,
)

ASPECTS = "aspects"  # the word in a store's name by which it is preferred to others
LEAST_ANSWERS = 2


def find_answers(folder: Path, name: str | None, own: str) -> Path:
    """The store of answers in a data set's folder.

    Args:
        folder: `cache/DATASET`.
        name: of the extractor, such as nano-aspects; None: the run's own if it has answers, else
            the one of aspects, else the only one.
        own: name of the run's own semantic store.

    Raises:
        AgiqaError: there is none, or several and none is meant more than another.
    """
    there = {
        path.stem.removesuffix(f"-{ANSWERS}"): path
        for suffix in FORMATS
        for path in sorted(folder.glob(f"*-{ANSWERS}{suffix}"))
    }
    if name is not None:
        if name not in there:
            raise AgiqaError(
                f"{folder}: expected the answers of '{name}' ({_pack_name(folder, name)}), found "
                f"{', '.join(there) or 'no answers'}: run `agiqa extract` with that prompt set."
            )
        return there[name]
    preferred = [each for each in there if each == own]
    preferred += [each for each in there if ASPECTS in each]
    if not there:
        raise AgiqaError(
            f"{folder}: no store of answers; `agiqa extract` with --set semantic.prompts=aspects "
            "--set semantic.name=nano-aspects makes one."
        )
    if not preferred and len(there) > 1:
        raise AgiqaError(f"{folder}: several stores of answers, {', '.join(there)}: name one.")
    return there[(preferred or list(there))[0]]


def read_answers(path: Path) -> FeatureStore:
    """The store, its answers one list for all aspects.

    Raises:
        AgiqaError: absent, damaged, or not of answers.
    """
    words(read_pack_metadata(path)["fingerprints"][0], path)
    return read_pack(path)


def words(fingerprint: Mapping[str, Any], path: Path) -> list[str]:
    """The answers, from the worst to the best.

    Raises:
        AgiqaError: the vectors are no answers' probabilities.
    """
    prompt = fingerprint.get("prompt")
    found = prompt.get(ANSWERS) if isinstance(prompt, Mapping) else None
    if not isinstance(found, list) or len(found) < LEAST_ANSWERS:
        raise PackError(f"{path}: expected probabilities of answers, found other vectors.")
    return [str(each) for each in found]


def levels(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities `(N, A, K)` to mean levels `(N, A)`, 1 to K."""
    shares = probabilities.astype(np.float64)
    shares /= np.maximum(shares.sum(axis=-1, keepdims=True), 1e-12)
    return np.asarray(shares @ np.arange(1, shares.shape[-1] + 1))


def _pack_name(folder: Path, name: str) -> str:
    return pack_beside(folder / f"{name}.zarr", ANSWERS).name
