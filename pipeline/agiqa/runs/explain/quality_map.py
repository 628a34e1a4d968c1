"""What each place of an image does to its score, and the picture of it."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from agiqa.runs.explain.overlay import draw_over


@dataclass(frozen=True, eq=False)
class QualityMap:
    """A grid over an image, in units of the MOS.

    A value is the score less the score without the place: above zero the place pulls the score up,
    below zero down. It is measured against the image's other places, so that the values of one
    image sum to about zero; what all places share is in no map.
    """

    values: np.ndarray  # (h, w) float32
    box: tuple[float, float, float, float]  # left, top, right, bottom in shares of the image
    method: str  # one sentence for a caption
    unit: str = "MOS a place"

    @property
    def peak(self) -> float:
        """The largest absolute value."""
        return float(np.abs(self.values).max())

    @property
    def weakest(self) -> str:
        """Where the score is pulled down most, in words such as upper left."""
        rows, columns = self.values.shape
        row, column = np.unravel_index(int(np.argmin(self.values)), self.values.shape)
        down = ("upper", "middle", "lower")[3 * int(row) // rows]
        across = ("left", "centre", "right")[3 * int(column) // columns]
        return "centre" if (down, across) == ("middle", "centre") else f"{down} {across}"

    def overlay(
        self, image: Image.Image, legend: bool = True, peak: float | None = None
    ) -> Image.Image:
        """The image with the map over it, RGB and of its size; a legend below adds to the height.

        Args:
            image: the picture that the map is of.
            legend: whether to say below which colour pulls down.
            peak: the value of the full colours; by default the map's own peak.
        """
        return draw_over(
            image, self.values, self.box, self.peak if peak is None else peak, legend, self.unit
        )
