"""A tiny evaluated run whose MOS is how much of an image is spoilt, and aspects that know of it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agiqa.data.datasets.table import read_table
from agiqa.store import read_pack, write_pack
from kit.command import agiqa
from kit.spoilt_images import World, spoilt

IMAGES = 80
WORDS = ["bad", "poor", "fair", "good", "excellent"]
TEMPLATE = "USER: {image}\n{prompt} Answer. ASSISTANT:"


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_lmm: Path) -> Iterator[World]:
    """Made by the commands themselves; not to be changed."""
    folder = tmp_path_factory.mktemp("world")
    images = folder / "images"
    images.mkdir()
    lines = ["path,quality,prompt"]
    for seed in range(IMAGES):
        image, cells = spoilt(seed)
        image.save(images / f"{seed:02d}.png")
        lines.append(f"{seed:02d}.png,{5 - 8 * cells.mean():.3f},a {seed // 2}")
    (images / "labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "params.yaml").write_text(
        f"semantic: {{name: tiny, model: {tiny_lmm}, batch_size: 8}}\n"
        f"visual: {{name: tiny-vision, model: {tiny_lmm}, layers: [1, 3], image_size: 64, "
        "closeup: 64, workers: 0}\n"
        "splits: {count: 10}\n"
        "fit: {components: 24, semantic_components: 4, epochs: 2}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("AGIQA_STORE", str(folder / "ledger"))
        for command in (
            ["prepare", "mine", "--from", "images/labels.csv", "--score-column", "quality",
             "--prompt-column", "prompt"],
            ["extract", "mine"],
            ["fit", "mine"],
            ["evaluate", "runs/mine/grouped"],
        ):  # fmt: skip
            agiqa(*command)
        yield World(folder, folder / "runs/mine/grouped", folder / "cache", images)


@pytest.fixture(scope="session")
def write_aspects(world: World) -> Callable[..., Path]:
    """Writes a store of answers: by aspect, how closely they follow the MOS (0: not at all)."""

    def write(strengths: dict[str, float], name: str = "tiny-aspects") -> Path:
        table = read_table(world.cache / "mine").frame
        mos = table["quality"].to_numpy()
        rng = np.random.default_rng(7)
        columns = []
        for strength in strengths.values():
            known = strength * (mos - mos.mean()) / mos.std()
            level = known + rng.normal(0, 1 - abs(strength), len(mos))
            weights = np.exp(-np.square(np.arange(5) - 2 - level[:, None]))
            columns.append(weights / weights.sum(axis=1, keepdims=True))
        path = world.cache / "mine" / f"{name}-answers.zarr"
        prints = [
            {
                "extractor": "lmm",
                "model": {"sha256": "f" * 64},
                "prompt": {
                    "answers": WORDS, "order": "image_first", "template": TEMPLATE,
                    "text": f"How good is {each}?",
                },
            }
            for each in strengths
        ]  # fmt: skip
        vectors = np.stack(columns, axis=1).astype(np.float16)
        write_pack(path, name, list(strengths), prints, list(table["image_id"]), vectors)
        assert read_pack(path).vectors.shape == (IMAGES, len(strengths), 5)
        return path

    return write


@pytest.fixture(scope="session")
def scores(world: World) -> pd.DataFrame:
    """`mos` and `score` by path."""
    rows = pd.read_csv(world.run / "predictions.csv")
    return rows[rows["model"] == "moe"].groupby("path")[["mos", "score"]].mean()
