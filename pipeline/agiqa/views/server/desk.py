"""Between the API and the models: takes files in, asks the models' thread, gives answers back."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from anyio import to_thread

from agiqa.core.errors import AgiqaError
from agiqa.data.images import ImageError, image_id
from agiqa.runs.score_notes import notes
from agiqa.views.server.answering import SCORED, Answer, Answering, Question
from agiqa.views.server.batching import Batches
from agiqa.views.server.decoding import Decoders, UndecodableError
from agiqa.views.server.explanations import Explanations
from agiqa.views.server.meters import Meters
from agiqa.views.server.pictures import Pictures
from agiqa.views.server.schemas import Explanation, ImageScore, Kind, RefusedFile, RunFacts, Scores
from agiqa.views.server.uploads import digest, keep, new_path

POLL_SECONDS = 0.5  # between looks whether the client is still there

Result = TypeVar("Result")
Gone = Callable[[], Any]  # awaited: whether the client has left


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class BadRequestError(Exception):
    """A request that cannot be answered; says in a sentence what is wrong with it."""


@dataclass(frozen=True)
class Given:
    """One image of a request: where it lies, or the bytes that came."""

    name: str  # for display
    prompt: str
    source: Path | BinaryIO


class Desk:
    """All that a server holds between requests."""

    def __init__(
        self,
        answering: Answering,
        batches: Batches[Question, Answer],
        explanations: Explanations,
        facts: RunFacts,
        folder: Path,
        listed: tuple[Path, Sequence[Path]] | None,
        meters: Meters,
        decoders: Decoders,
        prompt_bytes: int,
    ) -> None:
        self.answering, self.batches, self.explanations = answering, batches, explanations
        self.facts, self.folder, self.decoders = facts, folder, decoders
        self.meters, self.prompt_bytes = meters, prompt_bytes
        root, paths = listed or (Path(), ())
        self.listed_name = root.resolve().name
        self.listed = [path.relative_to(root).as_posix() for path in paths]
        self.pictures = Pictures(paths, decoders)
        self.dataset_pictures = Pictures(explanations.paths, decoders)

    def prompts(self, given: Sequence[str], count: int) -> list[str]:
        """A generation prompt for each of `count` images, "" for none.

        Raises:
            BadRequestError: neither one for all nor one for each, one is too long, or they are
                needed and missing.
        """
        if len(given) not in (0, 1, count):
            raise BadRequestError(
                f"Expected no image_prompts, one for all, or one for each of {count} images; "
                f"found {len(given)}."
            )
        prompts = [prompt.strip() for prompt in given] or [""]
        try:
            longest = max(len(prompt.encode()) for prompt in prompts)
        except UnicodeEncodeError:
            raise BadRequestError("Expected generation prompts of Unicode text.") from None
        if longest > self.prompt_bytes:
            raise BadRequestError(
                f"Expected generation prompts of at most {self.prompt_bytes} bytes of UTF-8, found "
                f"one of {longest}: shorten it."
            )
        prompts = prompts * count if len(prompts) == 1 else prompts
        if self.facts.asks_image_prompt and not all(prompts):
            raise BadRequestError(
                "This run asks for the text that an image was generated from: give image_prompts, "
                "one for all or one for each."
            )
        return prompts

    async def score(self, images: Sequence[Given], gone: Gone) -> Scores:
        """Scores of all that can be scored, and a reason for each of the others.

        Raises:
            QueueFullError: too many wait.
            ClientGoneError: the client has left; what had not begun is dropped.
        """
        answers: dict[int, tuple[str, Answer]] = {}  # by place in the request, with image ids
        refused: dict[int, str] = {}
        asked: dict[int, Question] = {}
        futures: list[Future[Answer]] = []
        try:
            for index, image in enumerate(images):
                try:
                    name = await self._image_id(image)
                    if (known := self.answering.known(name, image.prompt)) is not None:
                        answers[index] = name, known
                    else:
                        asked[index] = Question(name, await self._take(image), image.prompt)
                except UndecodableError as error:
                    refused[index] = str(error)
            futures = self.batches.ask(list(asked.values()))
        finally:
            if not futures:  # nobody else will
                for question in asked.values():
                    self._remove(question.path)
        for future, question in zip(futures, asked.values(), strict=True):
            future.add_done_callback(partial(self._removed, question.path))
        await _finished(futures, gone)
        for future, (index, question) in zip(futures, asked.items(), strict=True):
            if (failure := future.exception()) is None:
                answers[index] = question.image_id, future.result()
            else:
                refused[index] = _reason(failure, question.path)
        for outcome, count in Counter(answer.outcome for _, answer in answers.values()).items():
            self.meters.images.labels(outcome).inc(count)
        self.meters.images.labels("refused").inc(len(refused))
        return Scores(
            run=self.facts.run,
            target=self.facts.target,
            synthetic=self.facts.synthetic,
            scale=self.facts.scale,
            notes=notes(
                [answers[place][1].score for place in sorted(answers)],
                self.answering.scorer.run.provenance,
            ),
            scores=[
                _shown(index, images[index].name, *answers[index]) for index in sorted(answers)
            ],
            refused=[
                RefusedFile(index=index, name=images[index].name, reason=refused[index])
                for index in sorted(refused)
            ],
        )

    async def explain(self, image: Given, kinds: Sequence[Kind], gone: Gone) -> Explanation:
        """What is asked for and can be given.

        Raises:
            BadRequestError: the file cannot be used; says why.
            QueueFullError, ClientGoneError: as `score`.
        """
        try:
            path = await self._take(image)
        except UndecodableError as error:
            raise BadRequestError(f"{image.name}: {error}.") from None
        work = partial(self.explanations.explain, path, image.prompt, list(dict.fromkeys(kinds)))
        try:
            future = self.batches.run(work)
        except BaseException:
            self._remove(path)
            raise
        future.add_done_callback(partial(self._removed, path))
        await _finished([future], gone)
        return future.result()

    async def _image_id(self, image: Given) -> str:
        """The sha256 of its bytes."""
        try:
            if isinstance(image.source, Path):
                return await in_thread(image_id, image.source)
            return await in_thread(digest, image.source)
        except ImageError as error:
            raise UndecodableError(error.reason) from None

    async def _take(self, image: Given) -> Path:
        """A file that has been decoded once, in full; whoever takes an upload removes it."""
        if isinstance(image.source, Path):
            await self.decoders.check(image.source)
            return image.source
        path = new_path(self.folder)
        try:
            await in_thread(keep, image.source, path)
            await self.decoders.check(path)
        except OSError as error:
            self._remove(path)
            raise UndecodableError(f"cannot be kept for scoring: {error.strerror}") from error
        except BaseException:
            self._remove(path)
            raise
        return path

    def _removed(self, path: Path, _: object) -> None:
        self._remove(path)

    def _remove(self, path: Path) -> None:
        """A file of ours, never one of the operator's."""
        if path.parent == self.folder:
            path.unlink(missing_ok=True)


async def in_thread(work: Callable[..., Result], *given: Any) -> Result:
    """`work(*given)`, away from the loop; where the request is given up, its end is awaited."""
    task = asyncio.ensure_future(to_thread.run_sync(work, *given))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def _finished(futures: Sequence[Future[Any]], gone: Gone) -> None:
    """Wait for all; where the client leaves or time is up, cancel what has not begun."""
    waiting = {asyncio.ensure_future(asyncio.wrap_future(future)) for future in futures}
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, timeout=POLL_SECONDS)
            for task in done:
                task.exception()  # seen here; told by the future itself
            if waiting and await gone():
                raise ClientGoneError
    finally:
        for task in waiting:
            task.cancel()


def _reason(error: BaseException, path: Path) -> str:
    """An error in words that name no place on this machine."""
    if isinstance(error, AgiqaError):
        return str(error).replace(str(path), "the image")
    return "could not be scored: an internal error, which the server's log has."


def _shown(index: int, name: str, image_id: str, answer: Answer) -> ImageScore:
    score = answer.score
    return ImageScore(
        index=index,
        name=name,
        image_id=image_id,
        score=score.score,
        spread=score.spread,
        gate=dict(score.gate),
        targets=dict(list(score.targets.items())[1:]),
        trained_on=score.trained_on,
        held_out=score.held_out,
        cached=answer.outcome != SCORED,
    )
