"""One thread that owns the models, and the queue before it.

Requests come one image at a time and from many clients; what waits is answered together, up to a
batch. Explanations wait in a line of their own, and take turns with the batches, so that neither
keeps the other waiting for long. Work whose client has gone is dropped before it begins.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from agiqa.core.errors import AgiqaError
from agiqa.views.server.limits import Limits

log = logging.getLogger(__name__)

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
Other = TypeVar("Other")


class QueueFullError(AgiqaError):
    """As many images wait as may."""


@dataclass(frozen=True)
class Waiting(Generic[Asked, Answer]):
    """One question and where its answer goes."""

    asked: Asked
    future: "Future[Answer]"


class Batches(Generic[Asked, Answer]):
    """The thread and its queue.

    Args:
        answer: one answer, or the error, for each question of a batch.
        limits: `batch`, `gather_seconds` and `queue` are read.
        first: done in the thread before anything else, such as loading the models.
        on_failure: called with what `first` raised; nothing is answered then.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Asked]], Sequence[Answer | Exception]],
        limits: Limits,
        first: Callable[[], object] = lambda: None,
        on_failure: Callable[[BaseException], object] = lambda _: None,
    ) -> None:
        self._answer, self._limits = answer, limits
        self._first, self._on_failure = first, on_failure
        self._scores: deque[Waiting[Asked, Answer]] = deque()
        self._others: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._change = threading.Condition()
        self._stopping = False
        self.ready = threading.Event()
        self._thread = threading.Thread(target=self._work, name="models", daemon=True)

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
        """Questions that wait."""
        return len(self._scores) + len(self._others)

    def ask(self, questions: Sequence[Asked]) -> list["Future[Answer]"]:
        """A future for each question.

        Raises:
            QueueFullError: not all of them have room; none is taken.
        """
        futures: list[Future[Answer]] = [Future() for _ in questions]
        with self._change:
            self._require_room(len(questions))
            self._scores.extend(map(Waiting, questions, futures))
            self._change.notify_all()
        return futures

    def run(self, work: Callable[[], Other]) -> "Future[Other]":
        """A future of `work()`, done in the models' thread.

        Raises:
            QueueFullError: there is no room.
        """
        future: Future[Other] = Future()
        with self._change:
            self._require_room(1)
            self._others.append((work, future))  # type: ignore[arg-type]
            self._change.notify_all()
        return future

    def _require_room(self, more: int) -> None:
        if self._stopping:
            raise QueueFullError("The server is stopping.")
        if self.length + more > self._limits.queue:
            raise QueueFullError(
                f"{self.length} images wait, of at most {self._limits.queue}; try again later."
            )

    def _work(self) -> None:
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
                    for waiting in self._scores:
                        waiting.future.cancel()
                    for _, future in self._others:
                        future.cancel()
                    return
            if batch := self._batch():
                self._settle(batch)
            if self._others:
                work, other = self._others.popleft()
                if other.set_running_or_notify_cancel():
                    _fulfil(other, work)

    def _batch(self) -> list[Waiting[Asked, Answer]]:
        """What waits, after a moment for more to come; what was cancelled is left out."""
        with self._change:
            if not self._scores:
                return []
            until = time.monotonic() + self._limits.gather_seconds
            self._change.wait_for(
                lambda: len(self._scores) >= self._limits.batch,
                timeout=max(0.0, until - time.monotonic()),
            )
            taken: list[Waiting[Asked, Answer]] = []
            while self._scores and len(taken) < self._limits.batch:
                waiting = self._scores.popleft()
                if waiting.future.set_running_or_notify_cancel():
                    taken.append(waiting)
        return taken

    def _settle(self, batch: Sequence[Waiting[Asked, Answer]]) -> None:
        try:
            found = self._answer([each.asked for each in batch])
        except Exception as error:
            log.exception("A batch of %d failed", len(batch))
            found = [error] * len(batch)
        for waiting, answer in zip(batch, found, strict=True):
            if isinstance(answer, Exception):
                waiting.future.set_exception(answer)
            else:
                waiting.future.set_result(answer)


def _fulfil(future: "Future[object]", work: Callable[[], object]) -> None:
    try:
        future.set_result(work())
    except Exception as error:
        if not isinstance(error, AgiqaError):
            log.exception("An explanation failed")
        future.set_exception(error)
