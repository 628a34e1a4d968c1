"""`Explainer`: maps, reasons and neighbours of images, by what a run and its cache hold."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from agiqa.explaining.quality_map import QualityMap
from agiqa.explaining.reason import AspectValidity, Neighbour, Reason
from agiqa.scoring import Scorer


class Explainer:
    """Explains a run's scores; what it cannot give stands in `available`.

    Args:
        scorer: of the run.
        cache: the folder of `--cache`, which holds the run's data set; None: maps only.
        aspects: name of the store of aspects' answers (`cache/DATASET/NAME-answers.zarr`); None:
            the one found there.
    """

    def __init__(
        self, scorer: Scorer, cache: Path | None = None, aspects: str | None = None
    ) -> None:
        self.scorer = scorer
        self.available: dict[str, str] = {"maps": "", "reasons": "", "neighbours": ""}
        self.validity: list[AspectValidity] = []

    def maps(self, images: Sequence[Path | Image.Image]) -> list[QualityMap]:
        """What each place does to the score."""
        raise NotImplementedError

    def reasons(
        self, images: Sequence[Path | Image.Image], image_prompts: Sequence[str] | None = None
    ) -> list[list[Reason]]:
        """The aspects in which images are unusual, most unusual first; often none."""
        raise NotImplementedError

    def neighbours(
        self,
        images: Sequence[Path | Image.Image],
        count: int = 5,
        image_prompts: Sequence[str] | None = None,
    ) -> list[list[Neighbour]]:
        """The rated images most alike, never the image itself."""
        raise NotImplementedError
