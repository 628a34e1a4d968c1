"""Ways to spoil an image by a known amount, for the demo data set.

Some are technical (what a camera or a codec does), some semantic (what a generator does: every
pixel is fine, the picture makes no sense). Each takes an RGB image, a severity in (0, 1] and
a random generator, and gives an image of the same size. With a generator in the same state, a
higher severity goes on from a lower one: it moves the same tiles and then more of them. What moves
in pieces has only so many severities, which `possible` rounds to.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from agiqa.data.images import decode

Degradation = Callable[[Image.Image, float, np.random.Generator], Image.Image]

GRID = 4  # tiles a side
BANDS = 12
PIECES = {
    "tiles_shuffled": GRID * GRID,
    "halves_swapped": BANDS // 2,
    "regions_duplicated": 8,
}
CASTS = ((150, 30, 190), (30, 170, 40), (220, 120, 10), (20, 80, 210), (200, 20, 40))


def blur(image: Image.Image, severity: float, rng: np.random.Generator) -> Image.Image:
    """Blur by a Gaussian, radius 0.5 to 8 pixels."""
    return image.filter(ImageFilter.GaussianBlur(0.5 * 16**severity))


def noise(image: Image.Image, severity: float, rng: np.random.Generator) -> Image.Image:
    """Add white noise, standard deviation 5 to 75 of 255 levels."""
    pixels = np.asarray(image, dtype=np.float32)
    grain = rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(5 * 15**severity)
    return Image.fromarray(np.clip(np.rint(pixels + grain), 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, severity: float, rng: np.random.Generator) -> Image.Image:
    """Compress as JPEG, quality 50 down to 2."""
    stored = io.BytesIO()
    image.save(stored, "JPEG", quality=round(50 * (2 / 50) ** severity))
    return decode(stored.getvalue())


def colour(image: Image.Image, severity: float, rng: np.random.Generator) -> Image.Image:
    """Cast the colour farthest from the image's own over it, up to 65 %: contrast goes."""
    mean = np.asarray(image, dtype=np.float64).mean(axis=(0, 1))
    cast = max(CASTS, key=lambda candidate: float(np.abs(mean - candidate).sum()))
    return Image.blend(image, Image.new("RGB", image.size, cast), 0.65 * severity)


def tiles_shuffled(image: Image.Image, severity: float, rng: np.random.Generator) -> Image.Image:
    """Let 2 to all 16 of 4 x 4 tiles change places."""
    boxes = _tiles(image)
    order = rng.permutation(len(boxes))
    moved = order[: max(2, _pieces("tiles_shuffled", severity))]
    spoilt = image.copy()
    for source, target in zip(moved, np.roll(moved, 1), strict=True):
        spoilt.paste(image.crop(boxes[source]), boxes[target][:2])
    return spoilt


def halves_swapped(image: Image.Image, severity: float, rng: np.random.Generator) -> Image.Image:
    """Swap the left and right halves of 1 to 6 of 12 horizontal bands.

    No two of them touch: a picture swapped as a whole would look merely shifted.
    """
    width, height = image.size
    half, band = width // 2, height // BANDS
    spoilt = image.copy()
    for pair in rng.permutation(BANDS // 2)[: _pieces("halves_swapped", severity)]:
        top = (2 * int(pair) + 1) * band
        spoilt.paste(image.crop((0, top, half, top + band)), (width - half, top))
        spoilt.paste(image.crop((width - half, top, width, top + band)), (0, top))
    return spoilt


def regions_duplicated(
    image: Image.Image, severity: float, rng: np.random.Generator
) -> Image.Image:
    """Paste one region, a third of each side, 1 to 8 times elsewhere, with soft edges."""
    width, height = image.size[0] // 3, image.size[1] // 3
    cells = [(column * width, row * height) for row in range(3) for column in range(3)]
    centre = cells.pop(4)
    region = image.crop((*centre, centre[0] + width, centre[1] + height))
    edge = min(width, height) // 12
    mask = Image.new("L", (width, height), 0)
    mask.paste(255, (edge, edge, width - edge, height - edge))
    mask = mask.filter(ImageFilter.GaussianBlur(edge / 2))
    spoilt = image.copy()
    for index in rng.permutation(len(cells))[: _pieces("regions_duplicated", severity)]:
        spoilt.paste(region, cells[index], mask)
    return spoilt


def possible(kind: str, severity: float) -> float:
    """Give the nearest severity that this kind can have."""
    return _pieces(kind, severity) / PIECES[kind] if kind in PIECES else severity


def _pieces(kind: str, severity: float) -> int:
    return max(1, round(PIECES[kind] * severity))


def _tiles(image: Image.Image) -> list[tuple[int, int, int, int]]:
    width, height = image.size[0] // GRID, image.size[1] // GRID
    return [
        (column * width, row * height, (column + 1) * width, (row + 1) * height)
        for row in range(GRID)
        for column in range(GRID)
    ]


DEGRADATIONS: dict[str, Degradation] = {
    "blur": blur,
    "noise": noise,
    "jpeg": jpeg,
    "colour": colour,
    "tiles_shuffled": tiles_shuffled,
    "halves_swapped": halves_swapped,
    "regions_duplicated": regions_duplicated,
}
