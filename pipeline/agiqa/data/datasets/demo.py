"""The demo data set: made here, from photographs that ordinary dependencies ship, so synthetic.

Every source is kept once as it is and then spoilt step by step, technically and semantically. The
score is the known severity on a scale like a MOS: 5 for the untouched image, down to 1. A network
can learn it in a minute and it needs no download; it says nothing about how people see generated
images.

Some ways to spoil are technical (what a camera or a codec does), some semantic (what a generator
does: every pixel is fine, the picture makes no sense). Each takes an RGB image, a
severity in (0, 1] and a random generator, and gives an image of the same size. With a generator in
the same state, a higher severity goes on from a lower one: it moves the same tiles and then more of
them. What moves in pieces has only so many severities, which `possible` rounds to.

The same seed and the same Pillow and NumPy give the same bytes.
"""

import importlib.util
import io
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.table import ImagesTable, build_table
from agiqa.data.images import decode

NAME = "demo"
IMAGES = "images"
ORIGINAL = "original"  # the kind of an untouched image
LONGEST_SIDE = 448  # pixels
STEPS = 2  # severities for each source and kind
BEST, WORST = 5.0, 1.0
Degradation = Callable[[Image.Image, float, np.random.Generator], Image.Image]

GRID = 4  # tiles a side
BANDS = 12
PIECES = {
    "tiles_shuffled": GRID * GRID,
    "halves_swapped": BANDS // 2,
    "regions_duplicated": 8,
}
CASTS = ((150, 30, 190), (30, 170, 40), (220, 120, 10), (20, 80, 210), (200, 20, 40))


PHOTOGRAPHS = {  # a file of an installed package: a caption written for it
    "skimage/data/astronaut.png": "a smiling astronaut in an orange suit with her helmet",
    "skimage/data/camera.png": "a man in a black coat looking through a film camera",
    "skimage/data/chelsea.png": "a close-up of a ginger tabby cat's face",
    "skimage/data/coffee.png": "a cup of coffee on a red saucer with a spoon",
    "skimage/data/coins.png": "four rows of ancient coins on a dark background",
    "skimage/data/logo.png": "a drawing of an orange and a green snake in a circle",
    "skimage/data/motorcycle_left.png": "a red motorcycle parked in a garage",
    "skimage/data/retina.jpg": "a medical photograph of the retina of an eye",
    "skimage/data/rocket.jpg": "a white rocket on its launch pad at dusk",
    "sklearn/datasets/images/china.jpg": "a Chinese pagoda above trees and a lake",
    "sklearn/datasets/images/flower.jpg": "an orange dahlia in front of dark leaves",
    "matplotlib/mpl-data/sample_data/grace_hopper.jpg": "a portrait of an elderly naval officer in "
    "uniform before an American flag",
}
LICENCE = (
    "degraded copies of photographs in scikit-image (public domain, CC0, its logo BSD), matplotlib "
    "(public domain) and scikit-learn (CC BY 2.0: china.jpg by danielbuechele, flower.jpg by "
    "vultilion)"
)


def prepare(folder: Path, seed: int = 0, *, workers: int | None = None) -> ImagesTable:
    """Make the images in `folder/images`, all or none, and the table of them.

    An earlier `images` is replaced; `seed` is of everything random, `workers` of the final check.
    """
    rows = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{IMAGES}-") as work:
            images = Path(work) / IMAGES
            images.mkdir()
            for row, image in _make(seed):
                image.save(images / str(row["path"]), "JPEG", quality=92, subsampling=0)
                rows.append(row)
            shutil.rmtree(folder / IMAGES, ignore_errors=True)
            images.rename(folder / IMAGES)
    except OSError as error:
        raise AgiqaError(
            f"{folder}: cannot write the demo images: {error.strerror}; make room, or give "
            "another folder"
        ) from error
    return build_table(
        NAME,
        folder / IMAGES,
        pd.DataFrame(rows),
        ["quality"],
        licence=LICENCE,
        source=f"made by agiqa, seed {seed}",
        synthetic=True,
        workers=workers,
    )


def _make(seed: int) -> Iterator[tuple[dict[str, str | float], Image.Image]]:
    """Yield every image of the set with its row of the table."""
    for photograph, caption in PHOTOGRAPHS.items():
        original, group = _open(photograph), Path(photograph).stem
        yield _row(group, caption, ORIGINAL, 0, 0.0), original
        for kind, degrade in DEGRADATIONS.items():
            dice = [seed, zlib.crc32(f"{group}/{kind}".encode())]
            spread = np.random.default_rng(dice).uniform(0.25, 1.0, STEPS)
            for step in range(STEPS):
                # One draw within each of the bands, so that scores spread over the scale.
                severity = possible(kind, (step + float(spread[step])) / STEPS)
                image = degrade(original, severity, np.random.default_rng(dice))
                yield _row(group, caption, kind, step + 1, severity), image


def _row(group: str, caption: str, kind: str, step: int, severity: float) -> dict[str, str | float]:
    return {
        "path": f"{group}_{kind}{f'_{step}' if step else ''}.jpg",
        "prompt": caption,
        "group": group,
        "generator": kind,
        "quality": round(BEST - (BEST - WORST) * severity, 3),
    }


def _open(photograph: str) -> Image.Image:
    """Read a photograph, at most `LONGEST_SIDE` pixels long, without importing its package."""
    package, _, file = photograph.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise AgiqaError(f"the demo needs the package {package}: install agiqa again")
    path = Path(spec.origin).parent / file
    if not path.is_file():
        raise AgiqaError(
            f"the demo needs {file} of the package {package}, which the one in "
            f"{path.parent} has not: install agiqa's dependencies as constraints.txt names them"
        )
    image = decode(path)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return image


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
    degrade.__name__: degrade
    for degrade in (blur, noise, jpeg, colour, tiles_shuffled, halves_swapped, regions_duplicated)
}
