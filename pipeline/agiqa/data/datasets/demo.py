"""The demo data set: made here, from photographs that ordinary dependencies ship, so synthetic.

Every source is kept once as it is and then spoilt step by step, technically and semantically. The
score is the known severity on a scale like a MOS: 5 for the untouched image, down to 1. A network
can learn it in a minute and it needs no download; it says nothing about how people see generated
images.

The same seed and the same Pillow and NumPy give the same bytes.
"""

import importlib.util
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from agiqa.core.errors import AgiqaError
from agiqa.data.datasets.build import build_table
from agiqa.data.datasets.degradations import DEGRADATIONS, possible
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import decode

NAME = "demo"
IMAGES = "images"
ORIGINAL = "original"  # the kind of an untouched image
LONGEST_SIDE = 448  # pixels
STEPS = 2  # severities for each source and kind
BEST, WORST = 5.0, 1.0


@dataclass(frozen=True)
class Source:
    """A photograph inside an installed package, with a caption written for it."""

    package: str
    file: str
    caption: str

    @property
    def name(self) -> str:
        """The file's name without its suffix: the group of all images made from it."""
        return Path(self.file).stem


SOURCES = (
    Source(
        "skimage", "data/astronaut.png", "a smiling astronaut in an orange suit with her helmet"
    ),
    Source("skimage", "data/camera.png", "a man in a black coat looking through a film camera"),
    Source("skimage", "data/chelsea.png", "a close-up of a ginger tabby cat's face"),
    Source("skimage", "data/coffee.png", "a cup of coffee on a red saucer with a spoon"),
    Source("skimage", "data/coins.png", "four rows of ancient coins on a dark background"),
    Source("skimage", "data/logo.png", "a drawing of an orange and a green snake in a circle"),
    Source("skimage", "data/motorcycle_left.png", "a red motorcycle parked in a garage"),
    Source("skimage", "data/retina.jpg", "a medical photograph of the retina of an eye"),
    Source("skimage", "data/rocket.jpg", "a white rocket on its launch pad at dusk"),
    Source("sklearn", "datasets/images/china.jpg", "a Chinese pagoda above trees and a lake"),
    Source("sklearn", "datasets/images/flower.jpg", "an orange dahlia in front of dark leaves"),
    Source(
        "matplotlib",
        "mpl-data/sample_data/grace_hopper.jpg",
        "a portrait of an elderly naval officer in uniform before an American flag",
    ),
)

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
    for source in SOURCES:
        original = _open(source)
        yield _row(source, ORIGINAL, 0, 0.0), original
        for kind, degrade in DEGRADATIONS.items():
            dice = [seed, zlib.crc32(f"{source.name}/{kind}".encode())]
            spread = np.random.default_rng(dice).uniform(0.25, 1.0, STEPS)
            for step in range(STEPS):
                # One draw within each of the bands, so that scores spread over the scale.
                severity = possible(kind, (step + float(spread[step])) / STEPS)
                image = degrade(original, severity, np.random.default_rng(dice))
                yield _row(source, kind, step + 1, severity), image


def _row(source: Source, kind: str, step: int, severity: float) -> dict[str, str | float]:
    return {
        "path": f"{source.name}_{kind}{f'_{step}' if step else ''}.jpg",
        "prompt": source.caption,
        "group": source.name,
        "generator": kind,
        "quality": round(BEST - (BEST - WORST) * severity, 3),
    }


def _open(source: Source) -> Image.Image:
    """Read the source, at most `LONGEST_SIDE` pixels long, without importing its package."""
    spec = importlib.util.find_spec(source.package)
    if spec is None or spec.origin is None:
        raise AgiqaError(f"the demo needs the package {source.package}: install agiqa again")
    path = Path(spec.origin).parent / source.file
    if not path.is_file():
        raise AgiqaError(
            f"the demo needs {source.file} of the package {source.package}, which the one in "
            f"{path.parent} has not: install agiqa's dependencies as constraints.txt names them"
        )
    image = decode(path)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return image
