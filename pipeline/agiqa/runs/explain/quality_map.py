"""What each place of an image does to its score, and the map drawn over its image.

Orange pulls the score down, blue pulls it up, grey does neither. The image itself turns grey and a
little flat, so that every colour, on dark pictures too, is the map's. Orange and blue are told
apart with every common colour vision deficiency; the strongest places carry an outline as well,
solid below and dotted above zero, for those who see neither.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from agiqa.data.images import as_rgb

DOWN, UP = (214, 84, 0), (0, 92, 200)
OPAQUE = 0.8  # of the strongest colour
BLACK, WHITE = 60, 225  # of the grey image, so that dark and light places can take colour
OUTLINED = 0.5  # of the peak: cells beyond it are outlined
LEAST_WIDTH = 96  # pixels; a legend below a narrower picture could not be read
PAPER, INK = (250, 250, 250), (30, 30, 30)


@dataclass(frozen=True, eq=False)
class QualityMap:
    """A grid over an image, in units of the MOS.

    A value is the score less the score without the place: above zero the place pulls the score up,
    below zero down. It is measured against the image's other places, so that the values of one
    image sum to about zero; what all places share is in no map.
    """

    values: np.ndarray  # (h, w) float32
    method: str  # one sentence for a caption
    unit: str = "MOS a place"

    @property
    def peak(self) -> float:
        """Give the largest absolute value of the map."""
        return float(np.abs(self.values).max())

    @property
    def weakest(self) -> str:
        """Where the score is pulled down most, in words such as upper left."""
        rows, columns = self.values.shape
        row, column = np.unravel_index(int(np.argmin(self.values)), self.values.shape)
        down = ("upper", "middle", "lower")[3 * int(row) // rows]
        across = ("left", "centre", "right")[3 * int(column) // columns]
        return "centre" if (down, across) == ("middle", "centre") else f"{down} {across}"

    def overlay(self, image: Image.Image, peak: float | None = None) -> Image.Image:
        """Draw the map over its image: RGB, as wide; a legend below adds to the height.

        Args:
            image: the picture that the map is of; one narrower than LEAST_WIDTH gets no legend.
            peak: the value of the full colours; by default the map's own peak.
        """
        peak = self.peak if peak is None else peak
        picture = as_rgb(image)
        scaled = np.clip(self.values / peak if peak > 0 else np.zeros_like(self.values), -1, 1)
        cells = Image.fromarray(scaled.astype(np.float32))
        strength = np.asarray(cells.resize(picture.size, Image.Resampling.BICUBIC))[..., None]
        grey = np.asarray(picture.convert("L"), dtype=np.float32)[..., None]
        base = BLACK + grey * ((WHITE - BLACK) / 255)
        colour = np.where(strength < 0, np.array(DOWN), np.array(UP))
        alpha = OPAQUE * np.clip(np.abs(strength), 0, 1)
        mixed = Image.fromarray(np.uint8(np.clip(base + alpha * (colour - base), 0, 255)))
        _outline(mixed, scaled)
        return mixed if mixed.width < LEAST_WIDTH else _with_legend(mixed, peak, self.unit)


def _outline(picture: Image.Image, scaled: np.ndarray) -> None:
    """Draw the edges between outlined cells and others, dotted where they pull up."""
    draw = ImageDraw.Draw(picture)
    rows, columns = scaled.shape
    x = np.linspace(0, picture.width - 1, columns + 1).round().astype(int)
    y = np.linspace(0, picture.height - 1, rows + 1).round().astype(int)
    width = max(1, round(picture.width / 300))
    for outlined, colour, points in (
        (scaled < -OUTLINED, (120, 40, 0), 2),
        (scaled > OUTLINED, (0, 40, 120), 8),
    ):
        framed = np.pad(outlined, 1).astype(int)
        level = np.argwhere(np.diff(framed, axis=0)[:, 1:-1])
        upright = np.argwhere(np.diff(framed, axis=1)[1:-1])
        edges = [(x[column], y[row], x[column + 1], y[row]) for row, column in level]
        edges += [(x[column], y[row], x[column], y[row + 1]) for row, column in upright]
        for edge in edges:
            ends = np.linspace(edge[:2], edge[2:], points)
            for start, end in zip(ends[::2], ends[1::2], strict=True):
                draw.line((*start, *end), colour, width)


def _with_legend(picture: Image.Image, peak: float, unit: str) -> Image.Image:
    """A strip below: which side pulls which way, and how far at full colour."""
    size = max(10, min(22, picture.width // 28))
    font = ImageFont.load_default(size)
    down, up = f"pulls down -{peak:.2g}", f"+{peak:.2g} pulls up"
    bar, gap = size, size // 2
    height = bar + size + 3 * gap
    whole = Image.new("RGB", (picture.width, picture.height + height), PAPER)
    whole.paste(picture, (0, 0))
    draw = ImageDraw.Draw(whole)
    top, wide = picture.height + gap, picture.width - 2 * gap
    for column in range(wide):
        value = 2 * column / max(1, wide - 1) - 1
        colour = np.array(DOWN if value < 0 else UP)
        shade = np.array(PAPER) + OPAQUE * abs(value) * (colour - np.array(PAPER))
        x = gap + column
        draw.line((x, top, x, top + bar), (int(shade[0]), int(shade[1]), int(shade[2])))
    text = top + bar + gap // 2
    draw.text((gap, text), down, INK, font)
    draw.text((picture.width - gap - draw.textlength(up, font), text), up, INK, font)
    if draw.textlength(down + unit + up, font) + 4 * gap < picture.width:
        draw.text(((picture.width - draw.textlength(unit, font)) / 2, text), unit, INK, font)
    return whole
