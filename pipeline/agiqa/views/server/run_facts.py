"""What a run is, for the page's head and for programs."""

import logging

from agiqa import __version__
from agiqa.core.errors import AgiqaError
from agiqa.data.image_formats import MAX_PIXELS
from agiqa.runs.files import Run
from agiqa.runs.records import METRICS, read_metrics
from agiqa.runs.score import Scorer
from agiqa.stage2.presets import MIXTURE
from agiqa.views.kit.number import gate_line
from agiqa.views.server.limits import Limits
from agiqa.views.server.schemas import Interval, RunFacts, Scale, Taken, Tested

OF_PROVENANCE = (
    "dataset", "target", "protocol", "preset", "synthetic", "images", "experts",
)  # fmt: skip

log = logging.getLogger(__name__)


def run_facts(
    scorer: Scorer, explanations: dict[str, str], folder: int | None, limits: Limits
) -> RunFacts:
    """Say what the run is; `tested` is None where it is not evaluated or its figures are damaged.

    `explanations` are for each kind of them empty, or why not; `folder` counts the images of the
    operator's.
    """
    run, (low, high) = scorer.run, scorer.scale
    known = {name: run.provenance[name] for name in OF_PROVENANCE}
    return RunFacts(
        **known,
        licence=run.provenance.get("licence", ""),
        run=run.name,
        scale=Scale(low=low, high=high),
        asks_image_prompt=scorer.asks_image_prompt,
        tested=_tested(run),
        published="published" in run.provenance,
        explanations=explanations,
        folder=folder,
        limits=Taken(pixels=MAX_PIXELS, **vars(limits)),
        version=__version__,
    )


def _tested(run: Run) -> Tested | None:
    path = run.folder / METRICS
    if not path.is_file():
        return None
    try:
        metrics = read_metrics(run.folder, ("models", "splits"))
        figures = metrics["models"]
        model = MIXTURE if MIXTURE in figures else next(iter(figures))
        return Tested(
            model=model,
            splits=int(metrics["splits"]),
            srcc=Interval(**figures[model]["srcc"]),
            plcc=Interval(**figures[model]["plcc_logistic"]),
            level=(metrics.get("intervals") or {}).get("level"),
            gate=gate_line(metrics),
        )
    except (AgiqaError, KeyError, StopIteration) as error:
        log.warning("%s: not shown, damaged (%s)", path, error)
        return None
