"""Scores of checked files through the run, remembered by the image's bytes and prompt.

Vectors go through the ledger, as with `agiqa score`: an image that any command of this machine has
seen is not looked at again. Where another process writes in the ledger, or its disk refuses, the
image is scored in memory instead, and its vectors are not kept.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from agiqa.errors import AgiqaError
from agiqa.images import decode
from agiqa.scoring import Score, Scorer
from agiqa.serving.recent import Recent

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """An image to score: a decodable file, and the text it was generated from ("" for none)."""

    image_id: str
    path: Path
    prompt: str = ""


class Answering:
    """The run's scores; to be used from one thread, but for `known`."""

    def __init__(
        self, scorer: Scorer, remembered: int, on_batch: Callable[[int], object] = lambda _: None
    ) -> None:
        self.scorer = scorer
        self._known: Recent[tuple[str, str], Score] = Recent(remembered)
        self._on_batch = on_batch

    def known(self, image_id: str, prompt: str = "") -> Score | None:
        """The score where it was given before."""
        return self._known.get((image_id, self._prompt(prompt)))

    def warm_up(self) -> None:
        """Load the models, by scoring a grey square that is not kept."""
        square = Image.new("RGB", (64, 64), (127, 127, 127))
        self.scorer([square], ["a grey square"] if self.scorer.asks_image_prompt else None)

    def __call__(self, questions: Sequence[Question]) -> list[Score | Exception]:
        """A score, or what stood against it, for each question, in order."""
        keys = [(each.image_id, self._prompt(each.prompt)) for each in questions]
        wanted = dict(zip(keys, questions, strict=True))
        found: dict[tuple[str, str], Score | Exception] = {}
        for key in wanted:
            if (score := self._known.get(key)) is not None:
                found[key] = score
        left = {key: question for key, question in wanted.items() if key not in found}
        while left:  # the scorer takes an image once in a call, so other prompts wait for the next
            now = {key[0]: key for key in left}
            part = [left.pop(key) for key in now.values()]
            found.update(zip(now.values(), self._score(part), strict=True))
        for key, answer in found.items():
            if isinstance(answer, Score):
                self._known.put(key, answer)
        return [found[key] for key in keys]

    def _prompt(self, prompt: str) -> str:
        return prompt if self.scorer.asks_image_prompt else ""

    def _score(self, questions: Sequence[Question]) -> Sequence[Score | Exception]:
        self._on_batch(len(questions))
        asks = self.scorer.asks_image_prompt
        prompts = [each.prompt for each in questions] if asks else None
        try:
            return self.scorer([each.path for each in questions], prompts)
        except (AgiqaError, OSError) as error:
            if len(questions) > 1:  # one of them: the others are not to suffer
                return [answer for each in questions for answer in self._score([each])]
            log.debug("%s; scored in memory", error)
        try:
            return self.scorer([decode(questions[0].path)], prompts)
        except Exception as error:
            if not isinstance(error, AgiqaError):
                log.exception("An image could not be scored")
            return [error]
