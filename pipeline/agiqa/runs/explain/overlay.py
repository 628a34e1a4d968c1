"""A map drawn over its image: orange pulls the score down, blue pulls it up, grey does neither.

The image itself turns grey and a little flat, so that every colour, on dark pictures too, is the
map's. Orange and blue are told apart with every common colour vision deficiency; the strongest
places carry an outline as well, solid below and dotted above zero, for those who see neither.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from agiqa.data.images import as_rgb

DOWN, UP = (214, 84, 0), (0, 92, 200)
OPAQUE = 0.8  # of the strongest colour
BLACK, WHITE = 60, 225  # of the grey image, so that dark and light places can take colour
OUTLINED = 0.5  # of the peak: cells beyond it are outlined
LEAST_WIDTH = 96  # pixels; a legend below a narrower picture could not be read
PAPER, INK = (250, 250, 250), (30, 30, 30)


def draw_over(
    image: Image.Image,
    values: np.ndarray,
    box: tuple[float, float, float, float],
    peak: float,
    legend: bool,
    unit: str,
) -> Image.Image:
    """The picture with its map, RGB; a legend strip below where it is wanted and wide enough.

    Args:
        image: of any mode that `images.as_rgb` takes.
        values: the map `(h, w)`.
        box: where it lies, in shares of the image.
        peak: the value of the full colours.
        legend: whether to say below which colour is which.
        unit: of the values.
    """
    seen = as_rgb(image)
    corners = (
        round(box[0] * seen.width),
        round(box[1] * seen.height),
        round(box[2] * seen.width),
        round(box[3] * seen.height),
    )
    size = (max(1, corners[2] - corners[0]), max(1, corners[3] - corners[1]))
    scaled = np.clip(values / peak if peak > 0 else np.zeros_like(values), -1, 1)
    strength = np.asarray(
        Image.fromarray(scaled.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    )
    grey = np.asarray(seen.crop(corners).convert("L"), dtype=np.float32)[..., None]
    base = BLACK + grey * ((WHITE - BLACK) / 255)
    colour = np.where(strength[..., None] < 0, np.array(DOWN), np.array(UP))
    alpha = OPAQUE * np.clip(np.abs(strength), 0, 1)[..., None]
    mixed = Image.fromarray(np.uint8(np.clip(base + alpha * (colour - base), 0, 255)))
    _outline(mixed, scaled)
    seen.paste(mixed, corners[:2])
    if not legend or seen.width < LEAST_WIDTH:
        return seen
    return _with_legend(seen, peak, unit)


def _outline(picture: Image.Image, scaled: np.ndarray) -> None:
    """Edges between outlined cells and others."""
    draw = ImageDraw.Draw(picture)
    rows, columns = scaled.shape
    x = np.linspace(0, picture.width - 1, columns + 1).round().astype(int)
    y = np.linspace(0, picture.height - 1, rows + 1).round().astype(int)
    width = max(1, round(picture.width / 300))
    for inside, colour, dotted in (
        (scaled < -OUTLINED, (120, 40, 0), False),
        (scaled > OUTLINED, (0, 40, 120), True),
    ):
        framed = np.pad(inside, 1)
        for row, column in np.argwhere(np.diff(framed.astype(int), axis=0)[:, 1:-1]):
            _line(draw, (x[column], y[row], x[column + 1], y[row]), colour, width, dotted)
        for row, column in np.argwhere(np.diff(framed.astype(int), axis=1)[1:-1]):
            _line(draw, (x[column], y[row], x[column], y[row + 1]), colour, width, dotted)


def _line(
    draw: ImageDraw.ImageDraw,
    ends: tuple[int, int, int, int],
    colour: tuple[int, int, int],
    width: int,
    dotted: bool,
) -> None:
    if not dotted:
        draw.line(ends, colour, width)
        return
    steps = 4
    points = np.linspace(ends[:2], ends[2:], steps * 2)
    for start, end in zip(points[::2], points[1::2], strict=True):
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
