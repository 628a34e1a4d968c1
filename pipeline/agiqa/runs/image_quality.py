"""The mean score of generated images as a torchmetrics metric, for evaluation loops.

Needs the extra `torchmetrics`; so nothing else imports this module.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from agiqa.core.errors import AgiqaError
from agiqa.runs.create_scorer import create_scorer
from agiqa.runs.files import Run
from agiqa.runs.image_scorer import ImageScorer, Picture

try:
    from torchmetrics import Metric
except ImportError as error:
    raise AgiqaError(
        "agiqa.ImageQuality needs the extra 'torchmetrics' (no module torchmetrics): "
        "pip install 'agiqa[torchmetrics]'"
    ) from error


class ImageQuality(Metric):
    """Mean score of all images that were given: `ImageQuality("q-align")`.

    Args:
        scorer: what `create_scorer` takes or has made; by default the scorer that comes with agiqa.
        settings: those of every `torchmetrics.Metric`, such as `sync_on_compute`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    total: torch.Tensor  # of the scores, ()
    count: torch.Tensor  # of images, ()

    def __init__(
        self, scorer: ImageScorer | Run | Path | str | None = None, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.scorer = scorer if isinstance(scorer, ImageScorer) else create_scorer(scorer)
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(
        self, images: Picture | Sequence[Picture], image_prompts: Sequence[str] | None = None
    ) -> None:
        """Score images `(B, 3, H, W)`, or whatever else a scorer takes, and count them.

        Raises:
            AgiqaError: what the scorer raises; nothing of these images is counted then.
        """
        several = [images] if isinstance(images, Picture) else images
        scores = [score.score for score in self.scorer(several, image_prompts)]
        self.total += sum(scores)
        self.count += len(scores)

    def compute(self) -> torch.Tensor:
        """Divide the sum of the scores by their number; NaN where there are none."""
        return self.total / self.count
