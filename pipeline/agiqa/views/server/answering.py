"""Scores of checked files through the run, remembered by the image's bytes and prompt.

Vectors go through the ledger, as with `agiqa score`: an image that any command of this machine has
seen is not looked at again. Where another process writes in the ledger, or its disk refuses, the
image is scored in memory instead, and its vectors are not kept.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.data.images import decode
from agiqa.runs.score import Score, Scorer
from agiqa.store.row_ids import Source
from agiqa.views.server.recent import Recent

log = logging.getLogger(__name__)

REMEMBERED, LEDGER, SCORED = "remembered", "ledger", "scored"


@dataclass(frozen=True)
class Question:
    """An image to score: a decodable file, and the text it was generated from ("" for none)."""

    image_id: str
    path: Path
    prompt: str = ""


@dataclass(frozen=True)
class Answer:
    """A score, and what it took: `REMEMBERED`, vectors in the `LEDGER`, or models (`SCORED`)."""

    score: Score
    outcome: str


class Answering:
    """The run's scores; to be used from one thread, but for `known`."""

    def __init__(
        self, scorer: Scorer, remembered: int, on_batch: Callable[[int], object] = lambda _: None
    ) -> None:
        self.scorer = scorer
        self._known: Recent[tuple[str, str], Answer] = Recent(remembered)
        self._on_batch = on_batch

    def known(self, image_id: str, prompt: str = "") -> Answer | None:
        """The answer where it was given before."""
        return self._known.get((image_id, self._prompt(prompt)))

    def warm_up(self) -> None:
        """Load the models, by scoring a grey square that is not kept."""
        square = Image.new("RGB", (64, 64), (127, 127, 127))
        self.scorer([square], ["a grey square"] if self.scorer.asks_image_prompt else None)

    def __call__(self, questions: Sequence[Question]) -> list[Answer | Exception]:
        """An answer, or what stood against it, for each question, in order."""
        keys = [(question.image_id, self._prompt(question.prompt)) for question in questions]
        missing = dict(zip(keys, questions, strict=True))
        answers: dict[tuple[str, str], Answer | Exception] = {}
        for key in list(missing):
            if (known := self._known.get(key)) is not None:
                answers[key] = known
                del missing[key]
        while missing:  # the scorer takes an image once in a call: other prompts wait for the next
            part = {image_id: (image_id, prompt) for image_id, prompt in missing}
            batch = [missing.pop(key) for key in part.values()]
            answers.update(zip(part.values(), self._score(batch), strict=True))
        for key, answer in answers.items():
            if isinstance(answer, Answer):
                self._known.put(key, replace(answer, outcome=REMEMBERED))
        return [answers[key] for key in keys]

    def _prompt(self, prompt: str) -> str:
        return prompt if self.scorer.asks_image_prompt else ""

    def _score(self, questions: Sequence[Question]) -> Sequence[Answer | Exception]:
        self._on_batch(len(questions))
        asks = self.scorer.asks_image_prompt
        prompts = [question.prompt for question in questions] if asks else None
        try:
            in_ledger = self.scorer.in_ledger(
                {q.image_id: Source(q.path, q.prompt if asks else None) for q in questions}
            )
            scores = self.scorer([question.path for question in questions], prompts)
            return [
                _answer(score, LEDGER if question.image_id in in_ledger else SCORED)
                for score, question in zip(scores, questions, strict=True)
            ]
        except Exception as error:
            if len(questions) > 1:  # one of them, whatever it is: the others are not to suffer
                return [answer for question in questions for answer in self._score([question])]
            log.debug("%s; scored in memory", error)
        try:
            score = self.scorer([decode(questions[0].path)], prompts)[0]
            return [_answer(self.scorer.marked(score, questions[0].image_id), SCORED)]
        except Exception as error:
            if not isinstance(error, AgiqaError):
                log.exception("An image could not be scored")
            return [error]


def _answer(score: Score, outcome: str) -> Answer | AgiqaError:
    """The answer, unless a number of it is none: JSON could not say it."""
    numbers = [score.score, score.spread, *score.gate.values(), *score.targets.values()]
    numbers.append(score.held_out or 0.0)
    if not all(map(math.isfinite, numbers)):
        return AgiqaError("its score is no finite number: the run's weights do not fit it.")
    return Answer(score, outcome)
