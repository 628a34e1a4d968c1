"""The thread that owns the models, the queue before it, and what it answers.

Requests come one image at a time and from many clients; what waits is answered together, up to a
batch. Explanations wait in a line of their own, and take turns with the batches, so that neither
keeps the other waiting for long. Work whose client has gone is dropped before it begins.

Scores are remembered by the image's bytes and prompt. Vectors go through the ledger, as with `agiqa
score`: an image that any command of this machine has seen is not looked at again. Where another
process writes in the ledger, or its disk refuses, the image is scored in memory instead, and its
vectors are not kept.
"""

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from cachetools import LRUCache
from PIL import Image
from starlette.exceptions import HTTPException

from agiqa.core.errors import AgiqaError
from agiqa.data.images import decode
from agiqa.runs.score import Score, Scorer
from agiqa.store.row_ids import Source
from agiqa.views.server.limits import Limits

log = logging.getLogger(__name__)

REMEMBERED, LEDGER, SCORED = "remembered", "ledger", "scored"

Asked = TypeVar("Asked")
Result = TypeVar("Result")
Done = TypeVar("Done")


class ModelThread(Generic[Asked, Result]):
    """The thread and its queue: one answer, or the error, for each question of a batch.

    `first` is done in the thread before anything else, such as loading the models; `on_failure` is
    called with what it raised, and nothing is answered then.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Asked]], Sequence[Result | Exception]],
        limits: Limits,
        first: Callable[[], object] = lambda: None,
        on_failure: Callable[[BaseException], object] = lambda _: None,
    ) -> None:
        self._answer, self._limits = answer, limits
        self._first, self._on_failure = first, on_failure
        self._questions: deque[tuple[Asked, Future[Result]]] = deque()
        self._works: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._change = threading.Condition()
        self._stopping = False
        self.ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    def start(self) -> None:
        """Begin; `ready` is set once `first` is done."""
        self._thread.start()

    def stop(self) -> None:
        """Drop what waits; the thread ends once it has finished what it is answering."""
        with self._change:
            self._stopping = True
            self._change.notify_all()

    def join(self, seconds: float) -> None:
        """Wait for the thread's end; it is a daemon: a long batch does not keep the process."""
        if self._thread.is_alive():
            self._thread.join(seconds)

    @property
    def length(self) -> int:
        """How many questions and explanations wait."""
        return len(self._questions) + len(self._works)

    def ask(self, questions: Sequence[Asked]) -> list["Future[Result]"]:
        """Queue questions: a future for each.

        Raises:
            HTTPException: 503, not all of them have room; none is taken.
        """
        futures: list[Future[Result]] = [Future() for _ in questions]
        with self._change:
            self._require_room(len(questions))
            self._questions.extend(zip(questions, futures, strict=True))
            self._change.notify_all()
        return futures

    def run(self, work: Callable[[], Done]) -> "Future[Done]":
        """Queue `work()`, to be done in the models' thread: its future.

        Raises:
            HTTPException: 503, there is no room.
        """
        future: Future[Done] = Future()
        with self._change:
            self._require_room(1)
            self._works.append((work, future))
            self._change.notify_all()
        return future

    def _require_room(self, count: int) -> None:
        if self._stopping:
            raise HTTPException(503, "The server is stopping.")
        if self.length + count > self._limits.queue:
            raise HTTPException(
                503, f"{self.length} images wait, of at most {self._limits.queue}; try again later."
            )

    def _run(self) -> None:
        try:
            self._first()
        except BaseException as error:  # the thread's last word: whoever waits must learn of it
            self._on_failure(error)
            return
        self.ready.set()
        while True:
            with self._change:
                self._change.wait_for(lambda: self._stopping or self.length)
                if self._stopping:
                    for _, future in (*self._questions, *self._works):
                        future.cancel()
                    return
            self._answer_batch()
            if self._works:
                work, future = self._works.popleft()
                if future.set_running_or_notify_cancel():
                    _settle(future, _outcome(work, "An explanation failed"))

    def _answer_batch(self) -> None:
        """Answer what waits, after a moment for more to come; what was cancelled is left out."""
        batch: list[tuple[Asked, Future[Result]]] = []
        with self._change:
            if self._questions:
                self._change.wait_for(
                    lambda: len(self._questions) >= self._limits.batch,
                    timeout=self._limits.gather_seconds,
                )
            while self._questions and len(batch) < self._limits.batch:
                question, future = self._questions.popleft()
                if future.set_running_or_notify_cancel():
                    batch.append((question, future))
        if not batch:
            return
        answers = _outcome(
            lambda: self._answer([question for question, _ in batch]), "A batch failed"
        )
        if isinstance(answers, Exception):
            answers = [answers] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            _settle(future, answer)


def _outcome(work: Callable[[], Any], failure: str) -> Any:
    """The work's result, or its error; errors that are not the user's are logged."""
    try:
        return work()
    except Exception as error:
        if not isinstance(error, AgiqaError):
            log.exception(failure)
        return error


def _settle(future: "Future[Any]", outcome: Any) -> None:
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


@dataclass(frozen=True)
class Answer:
    """A score, and what it took: `REMEMBERED`, vectors in the `LEDGER`, or models (`SCORED`)."""

    score: Score
    outcome: str


class RememberingScorer:
    """The run's scores of checked files; to be used from one thread, but for `known`."""

    def __init__(
        self, scorer: Scorer, remembered: int, on_batch: Callable[[int], object] = lambda _: None
    ) -> None:
        self.scorer = scorer
        self._known: LRUCache[str, Answer] = LRUCache(remembered)  # by row id
        self._lock = threading.Lock()  # of `_known`
        self._on_batch = on_batch

    def known(self, row_id: str) -> Answer | None:
        """The answer for a `Source` of that id where it was given before."""
        with self._lock:
            return self._known.get(row_id)

    def warm_up(self) -> None:
        """Load the models, by scoring a grey square that is not kept."""
        square = Image.new("RGB", (64, 64), (127, 127, 127))
        self.scorer([square], ["a grey square"] if self.scorer.asks_image_prompt else None)

    def __call__(self, sources: Sequence[Source]) -> list[Answer | Exception]:
        """Score each image, in order, or say what stood against it."""
        missing, answers = dict[str, Source](), dict[str, Answer | Exception]()
        for source in sources:
            if (remembered := self.known(source.row_id)) is not None:
                answers[source.row_id] = remembered
            else:
                missing[source.row_id] = source
        if missing:
            answers.update(zip(missing, self._score(missing), strict=True))
        with self._lock:
            for key, answer in answers.items():
                if isinstance(answer, Answer):
                    self._known[key] = replace(answer, outcome=REMEMBERED)
        return [answers[source.row_id] for source in sources]

    def _score(self, sources: Mapping[str, Source]) -> Sequence[Answer | Exception]:
        self._on_batch(len(sources))
        try:
            in_ledger = self.scorer.in_ledger(sources)
            return [
                _answer(score, LEDGER if name in in_ledger else SCORED)
                for name, score in self.scorer.score_sources(sources).items()
            ]
        except Exception as error:
            if len(sources) > 1:  # one of them, whatever it is: the others are not to suffer
                return [answer for item in sources.items() for answer in self._score(dict([item]))]
            log.debug("%s; scored in memory", error)
        (source,) = sources.values()

        def in_memory() -> Answer | AgiqaError:
            image = source.image or decode(source.path)
            prompts = [source.image_prompt] if source.image_prompt else None
            score = self.scorer([image], prompts)[0]
            return _answer(self.scorer.marked(score, source.image_id), SCORED)

        return [_outcome(in_memory, "An image could not be scored")]


def _answer(score: Score, outcome: str) -> Answer | AgiqaError:
    """The answer, unless a number of it is none: JSON could not say it."""
    numbers = [score.score, score.disagreement or 0.0, score.held_out or 0.0]
    numbers += [*score.gate.values(), *score.targets.values()]
    if not all(map(math.isfinite, numbers)):
        return AgiqaError("its score is no finite number: the run's weights do not fit it.")
    return Answer(score, outcome)
