"""Published scorers as YAML files: which model is asked what, and what each answer is worth.

A model that was taught to rate needs no ratings of ours: its answers' probabilities are the score
(Q-Align, arXiv:2312.17090: the mean level; VQAScore, arXiv:2404.01291: the probability of yes). The
questions are a prompt set (`data.prompts`) inside the file.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Semantic, require_choices
from agiqa.data.named_yaml import find_named, named_files, read_mapping
from agiqa.data.prompts import LIKELIHOOD, VOCABULARY, PromptSet, make_prompt_set

SCORERS = "scorers"  # the folder of such files
TEXTS = ("name", "citation", "licence", "size", "model", "dtype", "target")
ASKED = ("order", "template", "prompts", "answers")  # of the prompt set
KEYS = (*TEXTS, *ASKED)
ASKED_AT_WILL = ("reply", "answers_over")
TEXTS_AT_WILL = ("revision", "trained_on", "published")
COMMERCIAL = "commercial"  # whether the licence allows such use
OPTIONAL = (*ASKED_AT_WILL, *TEXTS_AT_WILL, "scale", COMMERCIAL)


@dataclass(frozen=True)
class ScorerFile:
    """A scorer without a run: settings of its model, its questions, and what answers are worth."""

    name: str
    citation: str
    licence: str  # of the weights
    size: str  # of the model, and what it needs
    target: str  # what the scores are of: quality, alignment
    settings: Semantic  # of the model
    prompt_set: PromptSet
    weights: tuple[float, ...]  # of each answer; the score is the mean over the questions
    scale: tuple[float, float]  # what scores may be, or mostly are
    trained_on: str = ""  # data sets that the model has seen, whose scores are optimistic
    published: str = ""  # figures of others, with their source
    commercial: bool = True  # False: the licence forbids such use

    @property
    def terms(self) -> str:
        """The licence, and what it forbids."""
        return self.licence if self.commercial else f"{self.licence} (no commercial use)"


def known_scorers() -> dict[str, ScorerFile]:
    """Read the scorers in ./scorers and among the bundled, by name.

    Raises:
        AgiqaError: one of them is wrong.
    """
    return {name: read_scorer(name) for name in sorted(named_files(SCORERS))}


def is_scorer(name: str) -> bool:
    """Whether it is the name of a known scorer, or that of a YAML file."""
    return name.endswith((".yaml", ".yml")) or name in named_files(SCORERS)


def read_scorer(name: str) -> ScorerFile:
    """Read the scorer of that name in ./scorers or among the bundled, or at that path.

    Raises:
        AgiqaError: no such scorer (the known ones are listed), an unknown or missing key, or a
            value that its key cannot have.
    """
    if not is_scorer(name):
        known = "; ".join(
            f"{key} ({scorer.size}; licence: {scorer.terms})"
            for key, scorer in known_scorers().items()
        )
        raise AgiqaError(f"Unknown scorer '{name}'; known: {known}; or the path of a YAML file.")
    path = find_named(name, SCORERS, "scorer")
    tree = read_mapping(path, "scorer", KEYS, OPTIONAL)
    try:
        return _make(tree, path)
    except AgiqaError as error:
        raise AgiqaError(f"{path}: {error}") from error


def _make(tree: Mapping[str, Any], path: Path) -> ScorerFile:
    texts = {key: _text(tree, key) for key in TEXTS}
    texts |= {key: _text(tree, key) for key in TEXTS_AT_WILL if key in tree}
    answers, weights = _weighed(tree["answers"])
    asked = {key: tree[key] for key in (*ASKED, *ASKED_AT_WILL) if key in tree}
    prompt_set = make_prompt_set(
        asked
        | {"name": texts["name"], "citation": texts["citation"], "answers": answers}
        | {"pooling": "mean"}  # of vectors that nobody asks for
    )
    settings = Semantic(
        name=texts["name"],
        model=texts.pop("model"),
        prompts=str(path),
        dtype=texts.pop("dtype"),  # type: ignore[arg-type]  # checked below
        revision=texts.pop("revision", ""),
        precision="float32",  # a probability may be small, and still say which image is better
        batch_size=0,
    )
    require_choices("semantic", settings, "the scorer")
    commercial = tree.get(COMMERCIAL, True)
    if not isinstance(commercial, bool):
        raise AgiqaError(f"{COMMERCIAL} expects true or false, found {commercial!r}.")
    return ScorerFile(
        **texts,
        settings=settings,
        prompt_set=prompt_set,
        weights=weights,
        scale=_scale(tree.get("scale"), prompt_set, weights),
        commercial=commercial,
    )


def _text(tree: Mapping[str, Any], key: str) -> str:
    if not isinstance(tree[key], str) or not tree[key].strip():
        raise AgiqaError(f"{key} expects a text, found {tree[key]!r}.")
    return " ".join(tree[key].split())


def _weighed(answers: object) -> tuple[object, tuple[float, ...]]:
    """Split answers and their weights; of likelihoods it is the gain that counts."""
    if answers == LIKELIHOOD:
        return answers, (0.0, 1.0)
    if not isinstance(answers, dict):
        raise AgiqaError(
            f"answers map words to what they are worth (good: 4), or are {LIKELIHOOD}; found "
            f"{answers!r}."
        )
    for word, weight in answers.items():
        _require_number(weight, f"the weight of '{word}'")
    return list(answers), tuple(float(weight) for weight in answers.values())


def _scale(scale: object, prompt_set: PromptSet, weights: tuple[float, ...]) -> tuple[float, float]:
    """Find the lowest and the highest score: the answers' weights say them, or the file does."""
    if scale is None and prompt_set.answers_over != LIKELIHOOD:
        least = 0.0 if prompt_set.answers_over == VOCABULARY else math.inf  # it may say none
        return min(*weights, least), max(*weights, -least)
    if not isinstance(scale, list) or len(scale) != 2:
        raise AgiqaError(f"scale expects the lowest and the highest score, found {scale!r}.")
    for end in scale:
        _require_number(end, "an end of the scale")
    if not scale[0] < scale[1]:
        raise AgiqaError(f"scale expects a lower number first, found {scale!r}.")
    return float(scale[0]), float(scale[1])


def _require_number(value: object, what: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(float(value)):  # type: ignore[arg-type]
        raise AgiqaError(f"{what} expects a number, found {value!r}.")
