"""An evaluated run of thousands of images, out of a few distinct small pictures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from agiqa.core.json_text import write_json
from agiqa.data.datasets.table import ImagesTable, Target, write_table
from agiqa.data.metrics import all_metrics, summarise
from agiqa.runs.records import LAYOUT
from kit.run_files import provenance_of

GENERATORS = tuple(f"generator {letter}" for letter in "abcdef")
EXPERTS = ("visual", "semantic")
SUBJECTS = ("a lighthouse in fog", "a fox reading", "two boats", "a market at night")


def large_run(root: Path, count: int, distinct: int = 40, noise: int = 0, side: int = 96) -> Path:
    """Write `cache/large`, `images` and `run` under `root`; gives `run`.

    Args:
        root: an empty folder.
        count: images; each is a link to one of the pictures.
        distinct: pictures.
        noise: grey levels of noise, which is what makes pictures large.
        side: pixels a side.
    """
    rng = np.random.default_rng(0)
    images, pictures = root / "images", root / "pictures"
    images.mkdir()
    pictures.mkdir()
    ramp = np.linspace(0, 255, side)[None, :, None]
    for number in range(distinct):
        colour = rng.uniform(0, 1, (1, 1, 3))
        grain = rng.normal(0, noise, (side, side, 3)) if noise else 0.0
        pixels = np.clip(ramp * colour + np.zeros((side, side, 1)) + grain, 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(pictures / f"{number}.png")
    names = [f"{row:05d}.png" for row in range(count)]
    for row, name in enumerate(names):
        (images / name).symlink_to(pictures / f"{row % distinct}.png")
    mos = rng.uniform(1, 5, count).round(3)
    prompts = [f"{SUBJECTS[row % 4]}, number {row // 10}" for row in range(count)]
    frame = pd.DataFrame(
        {
            "image_id": [f"{row:064x}" for row in range(count)],
            "path": names,
            "prompt": prompts,
            "group": [f"group {row // 10}" for row in range(count)],
            "generator": [GENERATORS[row % len(GENERATORS)] for row in range(count)],
            "quality": mos,
        }
    )
    table = ImagesTable("large", images, frame, (Target("quality", 1.0, 5.0),), False, "CC0", "")
    write_table(table, root / "cache" / "large")
    _write_run(root / "run", frame, rng)
    return root / "run"


def _write_run(run: Path, frame: pd.DataFrame, rng: np.random.Generator) -> None:
    run.mkdir()
    count, mos = len(frame), frame["quality"].to_numpy()
    predictions = frame.drop(columns=["prompt", "quality"]).assign(
        model="moe", seed=0, mos=mos, score=(mos + rng.normal(0, 0.4, count)).round(4)
    )
    weight = rng.uniform(0.2, 0.9, count)
    predictions = predictions.assign(gate_visual=weight, gate_semantic=1 - weight)
    predictions.to_csv(run / "predictions.csv", index=False)
    figures = all_metrics(mos, predictions["score"].to_numpy())
    metrics = {
        "dataset": "large", "synthetic": False, "target": "quality", "protocol": "grouped",
        "splits": 1, "generators": {}, "gate": {},
        "models": {"moe": {name: summarise([value]) for name, value in figures.items()}},
        "per_split": {"moe": [{"seed": 0, "images": count, **figures}]},
    }  # fmt: skip
    write_json(run / "metrics.json", metrics)
    provenance = provenance_of(
        layout=LAYOUT, dataset="large", seeds=[0], experts=list(EXPERTS), images=count, stores={},
        leaks=[], versions={}, git_revision=None, licence="CC0", source="a test",
    )  # fmt: skip
    (run / "provenance.json").write_text(json.dumps(provenance), "utf-8")
    (run / "params.yaml").write_text("fit: {}\n", "utf-8")
    (run / "model.safetensors").touch()
    curves = [("moe", 0, epoch, 0.1, 0.9, 0.9) for epoch in range(3)]
    columns = ["model", "seed", "epoch", "train_loss", "val_srcc", "val_plcc"]
    pd.DataFrame(curves, columns=columns).to_csv(run / "curves.csv", index=False)
