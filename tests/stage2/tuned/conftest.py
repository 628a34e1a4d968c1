"""The tiny workspace's images with tokens, and more of them: the tail needs 60 to train on."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from kit.command import agiqa

IMAGES = 104
SETTINGS = """
semantic: {{name: tiny, model: {lmm}, batch_size: 16}}
visual: {{name: tiny-vision, model: {lmm}, layers: [1, 3], image_size: 32, closeup: 0,
  tokens: 2, token_size: 32}}
fit: {{preset: tuned, components: 8, semantic_components: 4, epochs: 4}}
tuned: {{epochs: 2, lr: 0.01, block_lr: 0.003}}
"""


@pytest.fixture(scope="session")
def run() -> Callable[..., Result]:
    """Runs `agiqa` with these arguments."""
    return partial(agiqa, status=None)


@pytest.fixture(scope="session")
def extracted(
    tmp_path_factory: pytest.TempPathFactory, tiny_lmm: Path, run: Callable[..., Result]
) -> Path:
    """A working folder with the data set `mine`, brighter images better, and all its stores."""
    folder = tmp_path_factory.mktemp("tuned")
    rng = np.random.default_rng(0)
    mos = rng.uniform(1, 5, IMAGES)
    (folder / "images").mkdir()
    for row, score in enumerate(mos):
        pixels = np.clip(rng.integers(0, 60, (24, 32, 3)) + 38 * score, 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"images/{row:03d}.png")
    lines = [f"{row:03d}.png,{score:.3f}" for row, score in enumerate(mos)]
    (folder / "images/labels.csv").write_text("\n".join(["path,quality", *lines]) + "\n")
    (folder / "params.yaml").write_text(SETTINGS.format(lmm=tiny_lmm))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("AGIQA_STORE", str(folder / "ledger"))
        prepare = ["prepare", "mine", "--from", "images/labels.csv", "--score-column", "quality"]
        splits = ["--set", "splits.count=2", "--set", "splits.ratio=[0.6, 0.2, 0.2]"]
        for command in ([*prepare, *splits], ["extract", "mine"]):
            result = run(*command)
            assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="session")
def fitted(extracted: Path, run: Callable[..., Result]) -> Path:
    """An evaluated run on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(extracted)
        patch.setenv("AGIQA_STORE", str(extracted / "ledger"))
        for command in (["fit", "mine", "-o", "runs/tuned"], ["evaluate", "runs/tuned"]):
            result = run(*command)
            assert result.exit_code == 0, result.output
    return extracted / "runs/tuned"


@pytest.fixture
def workspace(extracted: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, as the working one."""
    monkeypatch.chdir(extracted)
    monkeypatch.setenv("AGIQA_STORE", str(extracted / "ledger"))
    return extracted
