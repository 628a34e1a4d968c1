"""Fixtures that several test modules share: real images, small labelled folders, AGIQA-3K."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from agiqa.datasets.table import ImagesTable, Target

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def agiqa3k_folder() -> Path:
    """The real AGIQA-3K as its official download unpacks; mark users `agiqa3k`."""
    datasets = os.environ.get("AGIQA_DATA", str(REPOSITORY.parent / "shared" / "datasets"))
    folder = Path(datasets) / "agiqa-3k"
    if not (folder / "data.csv").is_file():
        pytest.skip(f"no AGIQA-3K in {folder}: set AGIQA_DATA to a folder that holds agiqa-3k")
    return folder


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A real photograph, 160 x 106, that scikit-learn ships."""
    from sklearn.datasets import load_sample_image

    pixels = load_sample_image("flower.jpg")
    return Image.fromarray(pixels).resize((160, 106), Image.Resampling.LANCZOS)


@pytest.fixture
def write_images(tmp_path: Path) -> Callable[..., Path]:
    """Writes small images, all different, under the given relative paths; gives their folder."""

    def write(*names: str, folder: str = "images") -> Path:
        for number, name in enumerate(names):
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        return tmp_path / folder

    return write


@pytest.fixture(scope="session")
def make_table() -> Callable[..., ImagesTable]:
    """A table in memory, its images never opened: one row for each group given."""

    def make(groups: list[str], files: list[str] | None = None, name: str = "tiny") -> ImagesTable:
        count = len(groups)
        frame = pd.DataFrame(
            {
                "image_id": files or [f"{row:064x}" for row in range(count)],
                "path": [f"{row:04d}.png" for row in range(count)],
                "prompt": groups,
                "group": groups,
                "generator": ["even" if row % 2 == 0 else "odd" for row in range(count)],
                "quality": np.linspace(1.0, 5.0, count),
            }
        )
        targets = (Target("quality", 1.0, 5.0),)
        return ImagesTable(name, Path("nowhere"), frame, targets, False, "none", "a test")

    return make
