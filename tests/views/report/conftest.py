"""A small evaluated run and its data set, with names that want escaping and real image files."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from agiqa.core.json_text import write_json
from agiqa.data.datasets.table import ImagesTable, Target, write_table
from agiqa.data.images import image_id
from agiqa.data.metric_names import FIGURES, FITTED, TOO_FEW_TO_FIT
from agiqa.data.metrics import all_metrics, summarise
from agiqa.runs.records import LAYOUT
from kit.run_files import provenance_of

IMAGES = 48
SEEDS = (0, 1, 2)
GENERATORS = ("good <b>", "花 $x$", "x_2")
EXPERTS = ("visual", "semantic_content", "coherence")
NOISE = {
    "ridge": 0.3, "ridge_visual": 0.4, "ridge_semantic": 0.9, "visual": 0.3, "semantic": 0.8,
    "moe": 0.2,
}  # fmt: skip


@pytest.fixture
def tiny_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run; gives the folder that holds `run`, `cache/tiny` and `images`."""
    return partial(make_run, tmp_path)


@pytest.fixture
def root(tiny_run: Callable[..., Path]) -> Path:
    """Such a folder, for a test to change."""
    return tiny_run()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a folder; not to be changed."""
    return make_run(tmp_path_factory.mktemp("finished"))


def make_run(root: Path, synthetic: bool = False, shared: int = 0) -> Path:
    rng = np.random.default_rng(0)
    images = root / "images"
    images.mkdir()
    for row in range(IMAGES):
        pixels = rng.integers(0, 256, (24, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{row:02d} a&b.png")
    paths = sorted(images.iterdir())
    frame = pd.DataFrame(
        {
            "image_id": [image_id(path) for path in paths],
            "path": [path.name for path in paths],
            "prompt": [f'a "cat" & <script>alert({row})</script>' for row in range(IMAGES)],
            "group": [f"prompt {row}" for row in range(IMAGES)],
            "generator": [GENERATORS[row % 3] for row in range(IMAGES)],
            "quality": rng.uniform(1, 5, IMAGES),
        }
    )
    table = ImagesTable(
        "tiny", images, frame, (Target("quality", 1.0, 5.0),), synthetic, "CC0 <1>", "a test"
    )
    write_table(table, root / "cache" / "tiny")
    run = root / "run"
    run.mkdir()
    predictions = _predictions(frame, rng)
    predictions.to_csv(run / "predictions.csv", index=False)
    write_json(run / "metrics.json", _metrics(predictions, synthetic))
    write_json(run / "provenance.json", _provenance(synthetic, shared))
    (run / "params.yaml").write_text("fit:\n  lr: 0.002 # <i>\n", encoding="utf-8")
    (run / "model.safetensors").touch()
    rows = [
        ("moe", seed, epoch, 1 / epoch, 0.9 - 0.5 / epoch, 0.9)
        for seed in SEEDS
        for epoch in range(2, 12, 2)
    ]
    columns = ["model", "seed", "epoch", "train_loss", "val_srcc", "val_plcc"]
    pd.DataFrame(rows, columns=columns).to_csv(run / "curves.csv", index=False)
    return root


def _predictions(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    parts = []
    for model, noise in NOISE.items():
        for seed in SEEDS:
            test = rng.permutation(IMAGES)[:20]
            part = frame.iloc[test].drop(columns=["prompt", "quality"])
            mos = frame["quality"].to_numpy()[test]
            part = part.assign(model=model, seed=seed, mos=mos)
            part["score"] = mos + rng.normal(0, noise, len(test))
            if model == "moe":
                weights = rng.dirichlet((4, 2, 2), len(test))
                for place, expert in enumerate(EXPERTS):
                    part[f"gate_{expert}"] = weights[:, place]
            parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _metrics(predictions: pd.DataFrame, synthetic: bool) -> dict[str, Any]:
    per_split = {
        model: [
            {"seed": seed, **all_metrics(part["mos"], part["score"])}
            for seed in SEEDS
            for part in [predictions[predictions["model"].eq(model) & predictions["seed"].eq(seed)]]
        ]
        for model in NOISE
    }
    undefined = summarise([])
    return {
        "dataset": "tiny",
        "synthetic": synthetic,
        "target": "quality",
        "protocol": "grouped",
        "splits": len(SEEDS),
        "models": {
            model: {name: summarise([row[name] for row in rows])
                | ({"why": TOO_FEW_TO_FIT} if name in FITTED else {})
                for name in FIGURES}
            for model, rows in per_split.items()
        },
        "per_split": per_split,
        "generators": {
            name: {"images": 16, "srcc": undefined, "plcc": undefined, "mean_mos": 3.0,
                   "mean_score": 2.5}
            for name in GENERATORS
        },
        "gate": {expert: {"mean": 1 / 3, "sd": 0.1} for expert in EXPERTS},
    }  # fmt: skip


def _provenance(synthetic: bool, shared: int) -> dict[str, Any]:
    def store(*names: str) -> dict[str, Any]:
        prints = [{"model": "nano", "prompt": name} for name in names]
        return {"extractor": "nano", "names": list(names), "fingerprints": prints}

    sides = {"train": 24, "val": 4, "test": 20}
    shares = {"same_group": shared, "same_file": min(shared, 1)}
    return provenance_of(
        layout=LAYOUT,
        synthetic=synthetic,
        seeds=list(SEEDS),
        images=IMAGES,
        stores={"semantic": store(*EXPERTS[1:]), "visual": store("visual")},
        leaks=[{"protocol": "grouped", "seed": seed, **sides, **shares} for seed in SEEDS],
        versions={"torch": "2.13.0"},
        git_revision="0123456789abcdef",
        fit_seconds=1.5,
        licence="CC0 <1>",
        source="a test",
    )
