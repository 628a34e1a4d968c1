"""The desk of one scorer: its parts put together."""

from collections.abc import Callable, Sequence
from pathlib import Path

from agiqa.runs.score import Scorer
from agiqa.views.server.answering import Answering
from agiqa.views.server.batching import Batches
from agiqa.views.server.decoding import Decoders
from agiqa.views.server.desk import Desk
from agiqa.views.server.explanations import Explanations
from agiqa.views.server.limits import Limits
from agiqa.views.server.meters import Meters
from agiqa.views.server.run_facts import run_facts


def make_desk(
    scorer: Scorer,
    cache: Path,
    listed: tuple[Path, Sequence[Path]] | None,
    folder: Path,
    limits: Limits,
    on_ready: Callable[[], object] = lambda: None,
    on_failure: Callable[[BaseException], object] = lambda _: None,
) -> Desk:
    """A desk whose models load when its thread starts.

    Args:
        scorer: the run.
        cache: the folder of data sets, for explanations.
        listed: a folder of the operator's and its images, in order.
        folder: where uploads are kept while they are answered; empty.
        limits: what is taken at most.
        on_ready: called from the thread once the models are loaded.
        on_failure: called from the thread with what kept them from it.
    """
    meters = Meters()
    answering = Answering(scorer, limits.remembered, meters.batches.observe)
    explanations = Explanations(scorer, cache)

    def first() -> None:
        answering.warm_up()
        on_ready()

    facts = run_facts(
        scorer.run,
        scorer.scale,
        scorer.asks_image_prompt,
        explanations.available,
        None if listed is None else len(listed[1]),
        limits,
    )
    batches = Batches(answering, limits, first, on_failure)
    return Desk(
        answering,
        batches,
        explanations,
        facts,
        folder,
        listed,
        meters,
        Decoders(limits),
        limits.prompt_bytes,
    )
