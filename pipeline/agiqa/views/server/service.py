"""Between the API and the models: takes images in, asks the models' thread, gives answers back.

What the run is, for the page's head and for programs; and maps, reasons and neighbours of an image
in the form that the API gives them, where what a run cannot give is said kind by kind.
"""

import asyncio
import base64
import io
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from agiqa import __version__
from agiqa.core.errors import AgiqaError, one_line
from agiqa.data.datasets.table import read_table
from agiqa.data.image_formats import MAX_PIXELS
from agiqa.data.images import decode
from agiqa.runs.explain import Explainer, Neighbour, QualityMap
from agiqa.runs.files import Run
from agiqa.runs.records import METRICS, read_metrics
from agiqa.runs.score import Scorer
from agiqa.runs.score_notes import notes
from agiqa.stage2.presets import MIXTURE
from agiqa.store.row_ids import Source, row_id
from agiqa.views.kit.number import gate_line
from agiqa.views.server import schemas
from agiqa.views.server.decoding import (
    Decoders,
    Pictures,
    RequestImage,
    UndecodableError,
    Uploads,
    digest,
)
from agiqa.views.server.guards import Meters
from agiqa.views.server.limits import Limits
from agiqa.views.server.schemas import Explanation, Kind
from agiqa.views.server.worker import SCORED, Answer, ModelThread, RememberingScorer

POLL_SECONDS = 0.5  # between looks whether the client is still there
# 499 is nginx's number for a client that has left; nobody reads it but the metrics.
CLIENT_GONE = 499, "The client has left."
OVERLAY_SIDE = 768  # pixels of a map: more shows nothing that a grid of patches holds
OF_PROVENANCE = (
    "dataset", "target", "protocol", "preset", "synthetic", "images", "experts",
)  # fmt: skip

Gone = Callable[[], Any]  # awaited: whether the client has left

log = logging.getLogger(__name__)


class Service:
    """All that a server holds between requests; its models load when its thread starts.

    `cache` is the folder of data sets, for explanations; `folder`, empty, keeps uploads while they
    are answered. Called from the thread are `on_ready` once the models are loaded, and `on_failure`
    with what kept them from it.
    """

    def __init__(
        self,
        scorer: Scorer,
        cache: Path,
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
        self.dataset_pictures = Pictures(self.explanations.paths, self.decoders)
        self.facts = run_facts(scorer, self.explanations.available, limits)

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

    async def score(self, images: Sequence[RequestImage], gone: Gone) -> schemas.Scores:
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
        return schemas.Scores(
            run=facts.run,
            target=facts.target,
            synthetic=facts.synthetic,
            scale=facts.scale,
            notes=notes([answer.score for _, (_, answer) in ordered], self.scorer.run.provenance),
            scores=[_image_score(index, images[index].name, *given) for index, given in ordered],
            refused=[
                schemas.RefusedFile(index=index, name=images[index].name, reason=reason)
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
                    image_id = await digest(image.file)
                    prompt = (image.prompt or None) if self.scorer.asks_image_prompt else None
                    remembered = self.remembering.known(row_id(image_id, prompt))
                    if remembered is not None:
                        answers[index] = image_id, remembered
                    else:
                        taken[index] = await self.uploads.take(image.file, image_id, prompt)
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
            kept = await self.uploads.take(image.file)
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


def _image_score(index: int, name: str, image_id: str, answer: Answer) -> schemas.ImageScore:
    own: dict[str, Any] = {
        "disagreement": answer.score.disagreement or 0.0,
        "targets": dict(list(answer.score.targets.items())[1:]),
        "cached": answer.outcome != SCORED,
    }
    return schemas.ImageScore(index=index, name=name, image_id=image_id, **vars(answer.score) | own)


def run_facts(scorer: Scorer, explanations: dict[str, str], limits: Limits) -> schemas.RunFacts:
    """Say what the run is; `tested` is None where it is not evaluated or its figures are damaged.

    `explanations` are for each kind of them empty, or why not.
    """
    run, (low, high) = scorer.run, scorer.scale
    known = {name: run.provenance[name] for name in OF_PROVENANCE}
    return schemas.RunFacts(
        **known,
        licence=run.provenance.get("licence", ""),
        run=run.name,
        scale=schemas.Scale(low=low, high=high),
        asks_image_prompt=scorer.asks_image_prompt,
        tested=_tested(run),
        published="published" in run.provenance,
        explanations=explanations,
        limits=schemas.Taken(pixels=MAX_PIXELS, **vars(limits)),
        version=__version__,
    )


def _tested(run: Run) -> schemas.Tested | None:
    path = run.folder / METRICS
    if not path.is_file():
        return None
    try:
        metrics = read_metrics(run.folder, ("models", "splits"))
        figures = metrics["models"]
        model = MIXTURE if MIXTURE in figures else next(iter(figures))
        return schemas.Tested(
            model=model,
            splits=int(metrics["splits"]),
            srcc=schemas.Interval(**figures[model]["srcc"]),
            plcc=schemas.Interval(**figures[model]["plcc_logistic"]),
            level=(metrics.get("intervals") or {}).get("level"),
            gate=gate_line(metrics),
        )
    except (AgiqaError, KeyError, StopIteration) as error:
        log.warning("%s: not shown, damaged (%s)", path, error)
        return None


class ServedExplanations:
    """Explanations of the run's scores; `explain` is for the models' thread alone."""

    def __init__(self, scorer: Scorer, cache: Path) -> None:
        self._explainer = Explainer(scorer, cache)
        self.available = {kind.value: self._explainer.available[kind.value] for kind in Kind}
        self.numbers: dict[str, int] = {}  # of the data set's images, by their path in its table
        self.paths: list[Path] = []
        if self.available[Kind.NEIGHBOURS]:
            return
        try:
            table = read_table(cache / str(scorer.run.provenance["dataset"]))
            self.paths = list(table.paths())
            self.numbers = {path: row for row, path in enumerate(table.frame["path"])}
        except AgiqaError as error:  # neighbours are then named, not shown
            log.warning("No pictures of neighbours: %s", error)

    def explain(self, path: Path, prompt: str, kinds: Collection[Kind]) -> Explanation:
        """Give what is asked for and can be given; say why of the rest in `unavailable`."""
        prompts = [prompt] if prompt else None
        unavailable = {k.value: why for k in kinds if (why := self.available[k.value])}
        explanation = Explanation(unavailable=unavailable)
        for kind in kinds:
            if kind.value in unavailable:
                continue
            try:
                if kind is Kind.MAPS:
                    explanation.map = _picture(self._explainer.maps([path])[0], decode(path))
                elif kind is Kind.REASONS:
                    reasons = self._explainer.reasons([path], prompts)[0]
                    explanation.reasons = [
                        schemas.Reason.model_validate(reason) for reason in reasons
                    ]
                else:
                    alike = self._explainer.neighbours([path], image_prompts=prompts)[0]
                    explanation.neighbours = list(map(self._neighbour, alike))
            except ValidationError as error:
                log.warning("%s: %s", kind.value, one_line(error))
                explanation.unavailable[kind.value] = "It came out as no finite number."
            except AgiqaError as error:
                log.warning("%s: %s", kind.value, error)
                explanation.unavailable[kind.value] = str(error).replace(str(path), "the image")
        return explanation

    def _neighbour(self, rated: Neighbour) -> schemas.Neighbour:
        neighbour = schemas.Neighbour.model_validate(rated)
        if (number := self.numbers.get(rated.path)) is not None:
            neighbour.picture = f"/api/v1/dataset/{number}/picture"
        return neighbour


def _picture(quality_map: QualityMap, image: Image.Image) -> schemas.MapPicture:
    image.thumbnail((OVERLAY_SIDE, OVERLAY_SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    quality_map.overlay(image).save(file, "PNG")
    return schemas.MapPicture(
        png=base64.b64encode(file.getvalue()).decode(),
        method=quality_map.method,
        peak=float(quality_map.peak),
    )
