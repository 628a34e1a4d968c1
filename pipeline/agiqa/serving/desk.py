"""Between the API and the models: takes files in, asks the models' thread, gives answers back."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import anyio
from anyio import to_thread

from agiqa.errors import AgiqaError
from agiqa.scoring import Score
from agiqa.serving.answering import Answering, Question
from agiqa.serving.batching import Batches
from agiqa.serving.explanations import Explanations, Kind
from agiqa.serving.meters import Meters
from agiqa.serving.pictures import Pictures
from agiqa.serving.schemas import Explanation, ImageScore, RefusedFile, RunFacts, Scores
from agiqa.serving.uploads import Kept, Refused, check, digest, keep

POLL_SECONDS = 0.5  # between looks whether the client is still there
DECODERS = 2  # files decoded at once, each up to 0.5 GB at the limit of pixels

Answer = TypeVar("Answer")
Gone = Callable[[], Any]  # awaited: whether the client has left


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


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
        batches: Batches[Question, Score],
        explanations: Explanations,
        facts: RunFacts,
        folder: Path,
        listed: tuple[Path, Sequence[Path]] | None,
        meters: Meters,
    ) -> None:
        self.answering, self.batches, self.explanations = answering, batches, explanations
        self.facts, self.folder = facts, folder
        self.meters = meters
        root, paths = listed or (Path(), ())
        self.listed_name = root.resolve().name
        self.listed = [path.relative_to(root).as_posix() for path in paths]
        self.pictures = Pictures(paths)
        self.decoding = anyio.CapacityLimiter(DECODERS)

    def prompts(self, given: Sequence[str], count: int) -> list[str]:
        """A generation prompt for each of `count` images, "" for none.

        Raises:
            ValueError: neither one for all nor one for each, one is too long, or they are needed
                and missing.
        """
        if len(given) not in (0, 1, count):
            raise ValueError(
                f"Expected no image_prompts, one for all, or one for each of {count} images; "
                f"found {len(given)}."
            )
        each = [prompt.strip() for prompt in given] or [""]
        each = each * count if len(each) == 1 else each
        if self.facts.asks_image_prompt and not all(each):
            raise ValueError(
                "This run asks for the text that an image was generated from: give image_prompts, "
                "one for all or one for each."
            )
        return each

    async def score(self, images: Sequence[Given], gone: Gone) -> Scores:
        """Scores of all that can be scored, and a reason for each of the others.

        Raises:
            QueueFullError: too many wait.
            ClientGoneError: the client has left; what had not begun is dropped.
        """
        known: dict[int, ImageScore] = {}
        refused: dict[int, str] = {}
        kept: dict[int, Kept] = {}
        futures: list[Future[Score]] = []
        try:
            for index, image in enumerate(images):
                image_id, score = await self._known(image)
                if score is not None:
                    known[index] = _shown(index, image.name, image_id, score, cached=True)
                    continue
                taken = await self._take(image)
                if isinstance(taken, Refused):
                    refused[index] = taken.reason
                else:
                    kept[index] = taken
            asked = [Question(k.image_id, k.path, images[i].prompt) for i, k in kept.items()]
            futures = self.batches.ask(asked)
        finally:
            if not futures:  # nobody else will
                for each in kept.values():
                    self._remove(each.path)
        for future, each in zip(futures, kept.values(), strict=True):
            future.add_done_callback(partial(self._removed, each.path))
        await _finished(futures, gone)
        for future, (index, each) in zip(futures, kept.items(), strict=True):
            error = future.exception()
            if error is None:
                name = images[index].name
                known[index] = _shown(index, name, each.image_id, future.result(), cached=False)
            else:
                refused[index] = _said(error, each.path)
        self._count(images, known, refused)
        return Scores(
            run=self.facts.run,
            target=self.facts.target,
            synthetic=self.facts.synthetic,
            scale=self.facts.scale,
            scores=[known[index] for index in sorted(known)],
            refused=[
                RefusedFile(index=index, name=images[index].name, reason=refused[index])
                for index in sorted(refused)
            ],
        )

    async def explain(self, image: Given, kinds: Sequence[Kind], gone: Gone) -> Explanation:
        """What is asked for and can be given.

        Raises:
            ValueError: the file cannot be used; says why.
            QueueFullError, ClientGoneError: as `score`.
        """
        taken = await self._take(image)
        if isinstance(taken, Refused):
            raise ValueError(f"{image.name}: {taken.reason}.")
        work = partial(self.explanations.explain, taken.path, image.prompt, kinds)
        try:
            future = self.batches.run(work)
        except BaseException:
            self._remove(taken.path)
            raise
        future.add_done_callback(partial(self._removed, taken.path))
        await _finished([future], gone)
        return future.result()

    async def _known(self, image: Given) -> tuple[str, Score | None]:
        if isinstance(image.source, Path):  # hashed with the check
            return "", None
        image_id = await to_thread.run_sync(digest, image.source)
        return image_id, self.answering.known(image_id, image.prompt)

    async def _take(self, image: Given) -> Kept | Refused:
        if isinstance(image.source, Path):
            work = partial(check, image.source)
        else:
            work = partial(keep, image.source, self.folder)
        async with self.decoding:
            return await to_thread.run_sync(work)

    def _removed(self, path: Path, _: object) -> None:
        self._remove(path)

    def _remove(self, path: Path) -> None:
        """A file of ours, never one of the operator's."""
        if path.parent == self.folder:
            path.unlink(missing_ok=True)

    def _count(
        self, images: Sequence[Given], known: dict[int, ImageScore], refused: dict[int, str]
    ) -> None:
        remembered = sum(each.cached for each in known.values())
        self.meters.images.labels("remembered").inc(remembered)
        self.meters.images.labels("scored").inc(len(known) - remembered)
        self.meters.images.labels("refused").inc(len(refused))


async def _finished(futures: Sequence[Future[Any]], gone: Gone) -> None:
    """Wait for all; where the client leaves or time is up, cancel what has not begun."""
    waiting = {asyncio.ensure_future(asyncio.wrap_future(each)) for each in futures}
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, timeout=POLL_SECONDS)
            for each in done:
                each.exception()  # seen here; told by the future itself
            if waiting and await gone():
                raise ClientGoneError
    finally:
        for each in waiting:
            each.cancel()


def _said(error: BaseException, path: Path) -> str:
    """An error in words that name no place on this machine."""
    if isinstance(error, AgiqaError):
        return str(error).replace(str(path), "the image")
    return "could not be scored: an internal error, which the server's log has."


def _shown(index: int, name: str, image_id: str, score: Score, cached: bool) -> ImageScore:
    return ImageScore(
        index=index,
        name=name,
        image_id=image_id,
        score=score.score,
        spread=score.spread,
        gate=dict(score.gate),
        targets=dict(list(score.targets.items())[1:]),
        cached=cached,
    )
