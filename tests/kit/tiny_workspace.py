"""A working folder as the commands leave it, in small: a data set, its cache and a run."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kit.command import agiqa

RUN = "runs/mine/random"
COMMANDS = (
    ["prepare", "mine", "--from", "images/labels.csv", "--score-column", "quality"],
    ["extract", "mine"],
    ["fit", "mine"],
    ["evaluate", RUN],
)


def make_workspace(folder: Path, lmm: Path) -> Path:
    """Make the data set `mine` of 40 images, its cache, a ledger and the run RUN, with the LMM."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for row in range(40):
        pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{row:02d}.png")
    lines = [f"{row:02d}.png,{mos:.3f}" for row, mos in enumerate(rng.uniform(1, 5, 40))]
    (folder / "images/labels.csv").write_text("\n".join(["path,quality", *lines]) + "\n")
    (folder / "params.yaml").write_text(
        f"semantic: {{name: tiny, model: {lmm}, batch_size: 8}}\n"
        f"visual: {{name: tiny-vision, model: {lmm}, layers: [1, 3], image_size: 32}}\n"
        "fit: {components: 8, semantic_components: 4, epochs: 4}\n"
    )
    here = Path.cwd()
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGIQA_STORE", str(folder / "ledger"))
        try:
            for command in COMMANDS:
                agiqa(*command)
        finally:
            os.chdir(here)
    return folder


def copy_workspace(workspace: Path, folder: Path) -> None:
    """Copy a working folder with the data set `mine`, whose images are then the copy's."""
    shutil.copytree(workspace, folder, dirs_exist_ok=True)
    root = folder / "cache/mine/root.json"
    root.write_text(root.read_text().replace(str(workspace), str(folder)))
