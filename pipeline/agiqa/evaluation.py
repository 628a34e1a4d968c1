"""Stage 2, `evaluate`: the test side of every split, read once, scored and measured.

SRCC and KRCC on raw scores; PLCC raw, and after the 4-parameter logistic together with RMSE, as
the field does. Median and standard deviation over the splits; every test image is scored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agiqa.checkpoints import METRICS, PREDICTIONS, SCATTER, SUMMARY, Run, write_json
from agiqa.datasets.table import ImagesTable
from agiqa.errors import AgiqaError
from agiqa.features import Features, require_same_stores
from agiqa.metrics import all_metrics, summarise
from agiqa.model.ensemble import RIDGES, VARIANTS, ridge_inputs

MODELS = ("ridge", "ridge_visual", "ridge_semantic", "visual", "semantic", "moe")
LEAST_IMAGES = 10  # a generator's correlation on fewer test images of a split says nothing


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` writes into a run."""

    predictions: pd.DataFrame  # model, seed, path, image_id, generator, group, mos, score, gate_*
    metrics: dict[str, Any]


def evaluate(
    run: Run, table: ImagesTable, features: Features, sides: Mapping[int, Mapping[str, np.ndarray]]
) -> Evaluation:
    """Score the test sides with every model of the run.

    Args:
        run: what `fit` made.
        table: the images and their MOS.
        features: of the table's images.
        sides: by split seed, row numbers of the test side.

    Raises:
        AgiqaError: features made in another way, or another data set, target or split than the
            run's.
    """
    target = run.provenance["target"]
    require_same_stores(run.provenance["stores"], features.stores)
    if target not in table.frame:
        names = ", ".join(each.name for each in table.targets) or "none"
        raise AgiqaError(f"'{table.name}' has no target '{target}'; it has {names}.")
    if list(sides) != list(run.provenance["seeds"]):
        raise AgiqaError(
            f"The run was fitted on splits {run.provenance['seeds']}, the split file holds "
            f"{list(sides)}: run `agiqa fit` again."
        )
    predictions = _predict(run, table, features, sides, table.frame[target].to_numpy())
    return Evaluation(predictions, _measure(run, predictions))


def write_evaluation(run: Path, evaluation: Evaluation) -> None:
    """Add predictions, metrics, their summary and the scatter to a run."""
    predictions = evaluation.predictions
    predictions.to_csv(run / PREDICTIONS, index=False, float_format="%.6g")
    moe = predictions[predictions["model"] == "moe"]
    scatter = moe.groupby("path", as_index=False)[["mos", "score"]].mean()
    scatter.to_csv(run / SCATTER, index=False, float_format="%.6g")
    summary = {
        model: {name: round(values["median"], 4) for name, values in figures.items()}
        for model, figures in evaluation.metrics["models"].items()
    }
    write_json(run / SUMMARY, summary)
    write_json(run / METRICS, evaluation.metrics)  # last: its presence says that all is there


def _predict(
    run: Run,
    table: ImagesTable,
    features: Features,
    sides: Mapping[int, Mapping[str, np.ndarray]],
    mos: np.ndarray,
) -> pd.DataFrame:
    parts = []
    described = table.frame[["path", "image_id", "generator", "group"]]
    outputs = {
        variant: run.ensemble.predict(features.visual, features.semantic, variant)
        for variant in VARIANTS
    }
    for place, (seed, split) in enumerate(zip(sides, run.ensemble.splits, strict=True)):
        test = sides[seed]["test"]
        inputs = ridge_inputs(split, features.visual[test], features.semantic[test])
        for model in MODELS:
            part = described.iloc[test].assign(model=model, seed=seed, mos=mos[test])
            if model in RIDGES:
                part["score"] = split.ridges[model].predict(inputs[model])
            else:
                score = outputs[model].score[place].mean(dim=0).numpy()
                part["score"] = score[test]
            if model == "moe":
                gate = outputs[model].gate[place].mean(dim=0).numpy()[test]
                for index, expert in enumerate(features.experts):
                    part[f"gate_{expert}"] = gate[:, index]
            parts.append(part)
    first = ["model", "seed"]
    whole = pd.concat(parts, ignore_index=True)
    return whole[first + [column for column in whole if column not in first]]


def _measure(run: Run, predictions: pd.DataFrame) -> dict[str, Any]:
    provenance = run.provenance
    per_split: dict[str, list[dict[str, Any]]] = {}
    for model in MODELS:
        rows = predictions[predictions["model"] == model]
        per_split[model] = [
            {"seed": int(str(seed)), "images": len(part)}
            | all_metrics(part["mos"].to_numpy(), part["score"].to_numpy())
            for seed, part in rows.groupby("seed", sort=False)
        ]
    names = [name for name in per_split["moe"][0] if name not in ("seed", "images")]
    moe = predictions[predictions["model"] == "moe"]
    gates = [f"gate_{expert}" for expert in provenance["experts"]]
    return {
        "dataset": provenance["dataset"],
        "synthetic": provenance["synthetic"],
        "target": provenance["target"],
        "protocol": provenance["protocol"],
        "splits": len(provenance["seeds"]),
        "models": {
            model: {name: summarise([row[name] for row in rows]) for name in names}
            for model, rows in per_split.items()
        },
        "generators": _by_generator(moe),
        "gate": {
            column.removeprefix("gate_"): {
                "mean": float(moe[column].mean()),
                "sd": float(moe[column].std()),
            }
            for column in gates
        },
        "per_split": per_split,
    }


def _by_generator(moe: pd.DataFrame) -> dict[str, Any]:
    """SRCC and PLCC within each generator's test images, over the splits that have enough."""
    found: dict[str, Any] = {}
    for generator, rows in moe.groupby("generator"):
        measured = [
            all_metrics(part["mos"].to_numpy(), part["score"].to_numpy())
            for _, part in rows.groupby("seed")
            if len(part) >= LEAST_IMAGES
        ]
        found[str(generator)] = {
            "images": int(rows["image_id"].nunique()),
            "mean_mos": float(rows["mos"].mean()),
            "mean_score": float(rows["score"].mean()),
            "srcc": summarise([each["srcc"] for each in measured]),
            "plcc": summarise([each["plcc"] for each in measured]),
        }
    return found
