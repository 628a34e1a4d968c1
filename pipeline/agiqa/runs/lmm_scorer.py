"""A published LMM scorer: its answers' probabilities are the score. Stage 1 alone, no run.

A model that was taught to rate needs no ratings of ours (Q-Align, arXiv:2312.17090: the mean level;
VQAScore, arXiv:2404.01291: the probability of yes). Which model is asked what, and what each answer
is worth, stands in a YAML file; the questions are a prompt set (`data.prompts`) inside it. Answers
come through the ledger, as a run's vectors do: each image is asked once, a kill loses seconds, and
a score depends on no other image.

`evaluate_scorer` measures it on the test sides of a data set. Nothing is trained, so splits only
say which images are measured together: the figures stand in the same columns as those of runs, and
are compared with them image by image.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from agiqa.core.errors import AgiqaError, printable
from agiqa.core.json_text import write_json
from agiqa.core.model_names import ZERO_SHOT
from agiqa.core.params import Fit, Semantic, require_choices
from agiqa.core.processes import device
from agiqa.core.run_folders import PROVENANCE, require_free_run
from agiqa.core.shapes import Shape, require
from agiqa.data.named_yaml import find_named, named_files, read_mapping
from agiqa.data.prompts import LIKELIHOOD, VOCABULARY, PromptSet, make_prompt_set
from agiqa.runs.files import Evaluation, write_all_results
from agiqa.runs.image_scorer import ImageScorer
from agiqa.runs.records import LAYOUT
from agiqa.runs.score import Score
from agiqa.stage1.extractors import (
    MissingModelError,
    VectorSubset,
    asks_image_prompt,
    semantic_extractor,
)
from agiqa.stage1.one_machine import Engine, OneMachine
from agiqa.stage1.vectors import FileVectors, vectors_of_images
from agiqa.store import ANSWERS
from agiqa.store.row_ids import Source

if TYPE_CHECKING:
    from agiqa.stage2.fit_data import RatedData

log = logging.getLogger(__name__)

SCORERS = "scorers"  # the folder of such files
TEXTS = ("name", "citation", "licence", "size", "model", "dtype", "target")
ASKED = ("order", "template", "prompts", "answers")  # of the prompt set
KEYS = (*TEXTS, *ASKED)
ASKED_AT_WILL = ("reply", "answers_over")
TEXTS_AT_WILL = ("revision", "trained_on", "published")
COMMERCIAL = "commercial"  # whether the licence allows such use
OPTIONAL = (*ASKED_AT_WILL, *TEXTS_AT_WILL, "scale", COMMERCIAL)
SHAPE: Shape = {  # of a file, but for the prompt set
    **dict.fromkeys((*TEXTS, *(f"{key}?" for key in TEXTS_AT_WILL)), str),
    "scale?": ([float], None),
    f"{COMMERCIAL}?": bool,
}


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
        require(tree, SHAPE)
        return _make(tree, path)
    except (AgiqaError, ValueError) as error:
        raise AgiqaError(f"{path}: {error}") from error


def _make(tree: Mapping[str, Any], path: Path) -> ScorerFile:
    given = [key for key in (*TEXTS, *TEXTS_AT_WILL) if key in tree]
    texts = {key: " ".join(tree[key].split()) for key in given}
    if empty := [key for key, text in texts.items() if not text]:
        raise AgiqaError(f"{empty[0]} expects a text, found ''.")
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
    return ScorerFile(
        **texts,
        settings=settings,
        prompt_set=prompt_set,
        weights=weights,
        scale=_scale(tree.get("scale"), prompt_set, weights),
        commercial=tree.get(COMMERCIAL, True),
    )


def _weighed(answers: object) -> tuple[object, tuple[float, ...]]:
    """Split answers and their weights; of likelihoods it is the gain that counts."""
    if answers == LIKELIHOOD:
        return answers, (0.0, 1.0)
    if not isinstance(answers, dict):
        raise AgiqaError(
            f"answers map words to what they are worth (good: 4), or are {LIKELIHOOD}; found "
            f"{answers!r}."
        )
    require(answers, {"*": float}, "answers")
    return list(answers), tuple(float(weight) for weight in answers.values())


def _scale(scale: object, prompt_set: PromptSet, weights: tuple[float, ...]) -> tuple[float, float]:
    """Find the lowest and the highest score: the answers' weights say them, or the file does."""
    if scale is None and prompt_set.answers_over != LIKELIHOOD:
        least = 0.0 if prompt_set.answers_over == VOCABULARY else math.inf  # it may say none
        return min(*weights, least), max(*weights, -least)
    if not isinstance(scale, list) or len(scale) != 2:
        raise AgiqaError(f"scale expects the lowest and the highest score, found {scale!r}.")
    if not scale[0] < scale[1]:
        raise AgiqaError(f"scale expects a lower number first, found {scale!r}.")
    return float(scale[0]), float(scale[1])


class LmmScorer(ImageScorer):
    """A scorer file ready to score images; its model loads on first use.

    Args:
        scorer: of `read_scorer`.
        ledger: where answers about files are kept; by default `agiqa.store.default_root()`.
        remote_code: `MODEL@DIGEST`, as `create_scorer` takes it.
        engine: what computes answers about files; by default this process.

    Raises:
        AgiqaError: the model is not there, or cannot be asked these questions.
    """

    def __init__(
        self,
        scorer: ScorerFile,
        ledger: Path | None = None,
        remote_code: str = "",
        engine: Engine | None = None,
    ) -> None:
        self.scorer, self.ledger, self.remote_code = scorer, ledger, remote_code
        self.engine = engine or OneMachine(scorer.settings.workers, whole=False)
        self.label, self.title = scorer.name, f"The scorer '{scorer.name}'"
        settings = replace(scorer.settings, remote_code=remote_code)
        log.log(  # what is about to be fetched and run, and on which terms, before either
            logging.INFO if scorer.commercial else logging.WARNING,
            "Scorer %s: model %s (%s), on %s; licence: %s",
            *(scorer.name, scorer.settings.model, scorer.size, device(), scorer.terms),
        )
        try:
            extractor = semantic_extractor(settings, scorer.prompt_set)
        except MissingModelError as error:
            raise AgiqaError(
                f"{error}: give --scorer a copy of {settings.prompts} with `model: FOLDER`"
            ) from error
        answers = [row for row, made in enumerate(extractor.vectors) if made.store == ANSWERS]
        self.semantic = VectorSubset(extractor, answers)
        self.answers_of_files = FileVectors(self.semantic, ledger, self.engine)
        self.asks_image_prompt = asks_image_prompt(self.semantic.vectors)
        self.provenance = {
            "scorer": scorer.name,
            "model": settings.model,
            "citation": scorer.citation,
            "licence": scorer.terms,
            "model_trained_on": scorer.trained_on,
            "published": scorer.published,
            "dataset": scorer.name,  # whose scale it is
            "target": scorer.target,
            "targets": [scorer.target],
            "synthetic": False,
            "mos": dict(zip(("low", "high"), scorer.scale, strict=True)),
            "experts": [],
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """Be made again from the scorer file, in another process; models are no part of it."""
        return LmmScorer, (self.scorer, self.ledger, self.remote_code)

    @property
    def provenance_of_results(self) -> dict[str, Any]:
        """What a folder of its results says of it, beside the data set's description."""
        kept = ("scorer", "model", "citation", "model_trained_on")
        return {"preset": "zero-shot"} | {key: self.provenance[key] for key in kept}

    def score_sources(self, sources: Mapping[str, Source]) -> dict[str, Score]:
        """Score images by row id, in order, through the ledger.

        Raises:
            BadImagesError: the model does not take some of them; the others' answers are kept.
        """
        answers = self.answers_of_files(sources)
        return dict(zip(sources, self._scores(list(sources), answers), strict=True))

    def score_loaded(
        self, images: Sequence[Image.Image], image_prompts: Sequence[str] | None
    ) -> list[Score]:
        """Score images in memory, with the generation prompts that the questions ask for."""
        answers = vectors_of_images(images, self.semantic, image_prompts)
        return self._scores([str(index) for index in range(len(images))], answers)

    def in_ledger(self, sources: Mapping[str, Source]) -> set[str]:
        """The images, of those by row id, whose answers are known."""
        return self.answers_of_files.in_ledger(sources)

    def _scores(self, names: Sequence[str], answers: Sequence[np.ndarray]) -> list[Score]:
        """Weigh the answers `(N, A)` to each question: the mean over questions is the score."""
        weights = np.array(self.scorer.weights)
        scores = np.mean([rows.astype(np.float64) @ weights for rows in answers], axis=0)
        target = self.scorer.target
        return [
            Score(name, score, None, None, None, gate={}, targets={target: score})
            for name, score in zip(names, scores.tolist(), strict=True)
        ]


def evaluate_scorer(
    name: str,
    dataset: str,
    *,
    target: str = "",
    protocol: str = "auto",
    out: Path | None = None,
    replace: bool = False,
    cache: Path = Path("cache"),
    runs: Path = Path("runs"),
    remote_code: str = "",
) -> Evaluation:
    """Measure a published scorer on the test side of every split, and write a folder of results.

    Args:
        name: of the scorer, or its YAML file.
        dataset: a prepared data set.
        target: a column of its scores; by default what the scorer says that it predicts.
        protocol: whose test sides are measured.
        out: the folder; by default `runs/DATASET/SCORER/PROTOCOL`.
        replace: overwrite results in that folder.
        cache: folder of images tables.
        runs: the folder of runs.
        remote_code: `MODEL@DIGEST`, as `create_scorer` takes it.

    Raises:
        AgiqaError: no such scorer, data set, target or split file, a run instead of a scorer,
            results in the folder, or an image that the model does not take.
    """
    from agiqa.stage2.fit_data import load_rated_data  # as `measure`, of no use to `agiqa score`

    if (Path(name) / PROVENANCE).is_file():
        raise AgiqaError(
            f"{printable(name)}: expected a published scorer, found a run, which knows scores of "
            f"its own data sets: `agiqa cross {printable(name)} --on {printable(dataset)}`."
        )
    if (Path(dataset) / PROVENANCE).is_file():
        raise AgiqaError(
            f"{printable(dataset)}: expected a data set's name, found a run: a published scorer is "
            "measured on a data set."
        )
    asked = read_scorer(name)
    settings = Fit(target=target or asked.target, protocol=protocol)
    rated = load_rated_data(cache / dataset, settings)
    folder = out or runs / dataset / asked.name / rated.protocol
    require_free_run(folder, replace)
    scorer = LmmScorer(asked, remote_code=remote_code)  # it may fetch gigabytes, so it comes last
    predictions = _predictions(scorer, rated)
    provenance = rated.description | scorer.provenance_of_results
    results = Evaluation(predictions, _metrics(rated, provenance, predictions))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / PROVENANCE, {"format": "agiqa-scorer", "layout": LAYOUT, **provenance})
    write_all_results(folder, [results])
    return results


def _predictions(scorer: LmmScorer, rated: "RatedData") -> pd.DataFrame:
    """Score each tested image once; a row for each split that tests it."""
    frame, (column, *_) = rated.table.frame, rated.columns
    tests = {seed: side["test"] for seed, side in rated.sides.items()}
    tested = np.unique(np.concatenate(list(tests.values())))
    files = [rated.table.paths()[row] for row in tested]
    prompts = [str(text) for text in frame["prompt"].iloc[tested]]
    if scorer.asks_image_prompt and not all(prompts):
        raise AgiqaError(
            f"'{scorer.label}' asks about the prompt that an image was generated from, which "
            f"'{rated.name}' lacks for {prompts.count('')} images: prepare it with --prompt-column."
        )
    scores = scorer(files, prompts if scorer.asks_image_prompt else None)
    means = pd.Series([score.score for score in scores], index=tested)
    described = frame[["path", "image_id", "generator", "group"]].assign(mos=frame[column])
    parts = [
        described.iloc[rows].assign(model=ZERO_SHOT, seed=seed, score=means[rows].to_numpy())
        for seed, rows in tests.items()
    ]
    whole = pd.concat(parts, ignore_index=True)
    return whole[["model", "seed", *described, "score"]]


def _metrics(
    rated: "RatedData", provenance: dict[str, Any], predictions: pd.DataFrame
) -> dict[str, Any]:
    """Build everything that metrics.json says of the scorer."""
    from agiqa.runs.measure import best_possible, measure

    kept = ("preset", "dataset", "synthetic", "target", "mos", "protocol", "splits_sha256", "leaks")
    return {
        **{key: provenance[key] for key in kept},
        "trained_on": [],
        "splits": len(rated.sides),
        **measure(predictions, (), (), main=ZERO_SHOT),
        **best_possible(rated.table, rated.columns[0], rated.sides),
    }
