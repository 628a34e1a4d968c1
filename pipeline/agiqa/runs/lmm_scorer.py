"""A published LMM scorer: its answers' probabilities are the score. Stage 1 alone, no run.

Answers come through the ledger, as a run's vectors do: each image is asked once, a kill loses
seconds, and a score depends on no other image.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.core.processes import device
from agiqa.runs.image_scorer import ImageScorer
from agiqa.runs.score import Score
from agiqa.runs.scorer_file import ScorerFile
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

log = logging.getLogger(__name__)


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
