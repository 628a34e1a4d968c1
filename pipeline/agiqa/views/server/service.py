"""Between the API and the models: takes images in, asks the models' thread, gives answers back."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException

from agiqa.core.errors import AgiqaError
from agiqa.runs.score import Scorer
from agiqa.runs.score_notes import notes
from agiqa.store.row_ids import Source, row_id
from agiqa.views.server.decoding import Decoders, Pictures, UndecodableError
from agiqa.views.server.explanations import ServedExplanations
from agiqa.views.server.limits import Limits
from agiqa.views.server.meters import Meters
from agiqa.views.server.run_facts import run_facts
from agiqa.views.server.schemas import Explanation, ImageScore, Kind, RefusedFile, Scores
from agiqa.views.server.uploads import RequestImage, Uploads
from agiqa.views.server.worker import SCORED, Answer, ModelThread, RememberingScorer

POLL_SECONDS = 0.5  # between looks whether the client is still there
# 499 is nginx's number for a client that has left; nobody reads it but the metrics.
CLIENT_GONE = 499, "The client has left."

Gone = Callable[[], Any]  # awaited: whether the client has left


class Service:
    """All that a server holds between requests; its models load when its thread starts.

    `cache` is the folder of data sets, for explanations; `listed` a folder of the operator's and
    its images, in order; `folder`, empty, keeps uploads while they are answered. Called from the
    thread are `on_ready` once the models are loaded, and `on_failure` with what kept them from it.
    """

    def __init__(
        self,
        scorer: Scorer,
        cache: Path,
        listed: tuple[Path, Sequence[Path]] | None,
        folder: Path,
        limits: Limits,
        on_ready: Callable[[], object] = lambda: None,
        on_failure: Callable[[BaseException], object] = lambda _: None,
    ) -> None:
        self.scorer, self.limits, self.meters = scorer, limits, Meters()
        self.decoders = Decoders(limits)
        self.uploads = Uploads(folder, self.decoders, limits.handed_bytes)
        self.remembering = RememberingScorer(scorer, limits.remembered, self.meters.batches.observe)

        def load() -> None:
            self.remembering.warm_up()
            on_ready()

        self.models: ModelThread[Source, Answer] = ModelThread(
            self.remembering, limits, load, on_failure
        )
        self.explanations = ServedExplanations(scorer, cache)
        root, paths = listed or (Path(), ())
        self.listed_name = root.resolve().name
        self.listed = [path.relative_to(root).as_posix() for path in paths]
        self.pictures = Pictures(paths, self.decoders)
        self.dataset_pictures = Pictures(self.explanations.paths, self.decoders)
        count = None if listed is None else len(paths)
        self.facts = run_facts(scorer, self.explanations.available, count, limits)

    def prompts(self, image_prompts: Sequence[str], count: int) -> list[str]:
        """A generation prompt for each of `count` images, "" for none.

        Raises:
            HTTPException: 400, neither one for all nor one for each, one is too long, or they are
                needed and missing.
        """
        if len(image_prompts) not in (0, 1, count):
            raise HTTPException(
                400,
                f"Expected no image_prompts, one for all, or one for each of {count} images; "
                f"found {len(image_prompts)}.",
            )
        prompts = [prompt.strip() for prompt in image_prompts] or [""]
        try:
            longest = max(len(prompt.encode()) for prompt in prompts)
        except UnicodeEncodeError:
            raise HTTPException(400, "Expected generation prompts of Unicode text.") from None
        if longest > self.limits.prompt_bytes:
            raise HTTPException(
                400,
                f"Expected generation prompts of at most {self.limits.prompt_bytes} bytes of "
                f"UTF-8, found one of {longest}: shorten it.",
            )
        prompts = prompts * count if len(prompts) == 1 else prompts
        if self.facts.asks_image_prompt and not all(prompts):
            raise HTTPException(
                400,
                "This run asks for the text that an image was generated from: give image_prompts, "
                "one for all or one for each.",
            )
        return prompts

    async def score(self, images: Sequence[RequestImage], gone: Gone) -> Scores:
        """Score all that can be scored; each of the others gets a reason.

        Raises:
            HTTPException: 503, too many wait; 499, the client has left, and what had not begun is
                dropped.
        """
        answers, refused, taken = await self._take(images, gone)
        futures: list[Future[Answer]] = []
        try:
            futures = self.models.ask(list(taken.values()))
        finally:
            if not futures:  # nobody else will
                self._drop(taken.values())
        for future, source in zip(futures, taken.values(), strict=True):
            future.add_done_callback(partial(self.uploads.remove, source))
        await _finished(futures, gone)
        for future, (index, source) in zip(futures, taken.items(), strict=True):
            if (failure := future.exception()) is None:
                answers[index] = source.image_id, future.result()
            else:
                refused[index] = _reason(failure, source.path)
        for outcome, count in Counter(answer.outcome for _, answer in answers.values()).items():
            self.meters.images.labels(outcome).inc(count)
        self.meters.images.labels("refused").inc(len(refused))
        ordered, facts = sorted(answers.items()), self.facts
        return Scores(
            run=facts.run,
            target=facts.target,
            synthetic=facts.synthetic,
            scale=facts.scale,
            notes=notes([answer.score for _, (_, answer) in ordered], self.scorer.run.provenance),
            scores=[_image_score(index, images[index].name, *given) for index, given in ordered],
            refused=[
                RefusedFile(index=index, name=images[index].name, reason=reason)
                for index, reason in sorted(refused.items())
            ],
        )

    async def _take(
        self, images: Sequence[RequestImage], gone: Gone
    ) -> tuple[dict[int, tuple[str, Answer]], dict[int, str], dict[int, Source]]:
        """Take images in: remembered answers with image ids, refusals, and what is to be scored.

        All by their places in the request.
        """
        answers: dict[int, tuple[str, Answer]] = {}
        refused: dict[int, str] = {}
        taken: dict[int, Source] = {}
        try:
            for index, image in enumerate(images):
                if await gone():
                    raise HTTPException(*CLIENT_GONE)
                try:
                    image_id = await image.image_id()
                    prompt = (image.prompt or None) if self.scorer.asks_image_prompt else None
                    remembered = self.remembering.known(row_id(image_id, prompt))
                    if remembered is not None:
                        answers[index] = image_id, remembered
                    else:
                        taken[index] = await self.uploads.take(image, image_id, prompt)
                except UndecodableError as error:
                    refused[index] = str(error)
        except BaseException:
            self._drop(taken.values())
            raise
        return answers, refused, taken

    def _drop(self, taken: Iterable[Source]) -> None:
        for source in taken:
            self.uploads.remove(source)

    async def explain(self, image: RequestImage, kinds: Sequence[Kind], gone: Gone) -> Explanation:
        """Explain what is asked for and can be explained.

        Raises:
            HTTPException: 400, the file cannot be used; says why. Or as `score`.
        """
        try:
            kept = await self.uploads.take(image)
        except UndecodableError as error:
            raise HTTPException(400, f"{image.name}: {error}.") from None
        work = partial(
            self.explanations.explain, kept.path, image.prompt, list(dict.fromkeys(kinds))
        )
        try:
            future = self.models.run(work)
        except BaseException:
            self.uploads.remove(kept)
            raise
        future.add_done_callback(partial(self.uploads.remove, kept))
        await _finished([future], gone)
        return future.result()


async def _finished(futures: Sequence[Future[Any]], gone: Gone) -> None:
    """Wait for all; where the client leaves or time is up, cancel what has not begun."""
    waiting = {asyncio.ensure_future(asyncio.wrap_future(future)) for future in futures}
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, timeout=POLL_SECONDS)
            for task in done:
                task.exception()  # seen here; told by the future itself
            if waiting and await gone():
                raise HTTPException(*CLIENT_GONE)
    finally:
        for task in waiting:
            task.cancel()


def _reason(error: BaseException, path: Path) -> str:
    """An error in words that name no place on this machine."""
    if isinstance(error, AgiqaError):
        return str(error).replace(str(path), "the image")
    return "could not be scored: an internal error, which the server's log has."


def _image_score(index: int, name: str, image_id: str, answer: Answer) -> ImageScore:
    own: dict[str, Any] = {
        "disagreement": answer.score.disagreement or 0.0,
        "targets": dict(list(answer.score.targets.items())[1:]),
        "cached": answer.outcome != SCORED,
    }
    return ImageScore(index=index, name=name, image_id=image_id, **vars(answer.score) | own)
