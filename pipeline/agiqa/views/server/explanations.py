"""Maps, reasons and neighbours for one image, in the form that the API gives them.

The one module here that knows `agiqa.runs.explain`; what that cannot give for a run is said in a
sentence, kind by kind.
"""

import base64
import io
import logging
from collections.abc import Collection
from pathlib import Path

from PIL import Image
from pydantic import ValidationError

from agiqa.core.errors import AgiqaError, one_line
from agiqa.data.datasets.table import read_table
from agiqa.data.images import decode
from agiqa.runs.explain import Explainer, QualityMap
from agiqa.runs.explain import Neighbour as RatedNeighbour
from agiqa.runs.score import Scorer
from agiqa.views.server.schemas import Explanation, Kind, MapPicture, Neighbour, Reason

log = logging.getLogger(__name__)

OVERLAY_SIDE = 768  # pixels: more shows nothing that a grid of patches holds


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
                    explanation.reasons = [Reason.model_validate(reason) for reason in reasons]
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

    def _neighbour(self, rated: RatedNeighbour) -> Neighbour:
        neighbour = Neighbour.model_validate(rated)
        if (number := self.numbers.get(rated.path)) is not None:
            neighbour.picture = f"/api/v1/dataset/{number}/picture"
        return neighbour


def _picture(quality_map: QualityMap, image: Image.Image) -> MapPicture:
    image.thumbnail((OVERLAY_SIDE, OVERLAY_SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    quality_map.overlay(image).save(file, "PNG")
    return MapPicture(
        png=base64.b64encode(file.getvalue()).decode(),
        method=quality_map.method,
        peak=float(quality_map.peak),
    )
