"""Stage 2, `evaluate`: the test side of every split, read once, scored and measured.

SRCC and KRCC on raw scores; PLCC raw, and after the 4-parameter logistic together with RMSE, as
the field does. Median, mean and standard deviation over the splits, with 95 % intervals of the
median and of each split (`statistics.intervals` says what they hold for), and the ceiling that the
raters' own noise sets, where the data set gives their deviations; every test image is scored. The
preset `paper` gives, beside, the figures that the authors' loader would: it shuffles the test side
and drops the images that do not fill a batch, a few of them, others each time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agiqa.checkpoints import METRICS, PREDICTIONS, SCATTER, SUMMARY, Run, write_json
from agiqa.datasets.table import ImagesTable
from agiqa.errors import AgiqaError
from agiqa.features import Features, require_same_stores
from agiqa.metrics import all_metrics, summarise
from agiqa.model.paper_ensemble import PaperEnsemble
from agiqa.paper_inputs import PaperInputs, require_width
from agiqa.presets import RECIPES, recipe
from agiqa.statistics.ceiling import assumed_raters, deviations, known_raters, noise_ceiling
from agiqa.statistics.intervals import RESAMPLES, model_intervals
from agiqa.tested_models import MIXTURE, Tested, models_of

DROPPED = "moe_drop_last"  # the mixture on the images that the authors' test loader leaves
LEAST_IMAGES = 10  # a generator's correlation on fewer test images of a split says nothing


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` writes into a run."""

    predictions: pd.DataFrame  # model, seed, path, image_id, generator, group, mos, score, gate_*
    metrics: dict[str, Any]


def evaluate(
    run: Run,
    table: ImagesTable,
    features: Features | PaperInputs,
    sides: Mapping[int, Mapping[str, np.ndarray]],
) -> Evaluation:
    """Score the test sides with every model of the run.

    Args:
        run: what `fit` made.
        table: the images and their MOS.
        features: of the table's images, as the run's preset takes them.
        sides: by split seed, row numbers of the test side.

    Raises:
        AgiqaError: features made in another way, or another data set, target or split than the
            run's.
    """
    target = run.provenance["target"]
    if isinstance(run.ensemble, PaperEnsemble):
        width = run.ensemble.config.semantic_width
        require_width(features.semantic.shape[-1], width, f"The store of '{table.name}'")
    require_same_stores(run.provenance["stores"], features.stores)
    if target not in table.frame:
        names = ", ".join(each.name for each in table.targets) or "none"
        raise AgiqaError(f"'{table.name}' has no target '{target}'; it has {names}.")
    if list(sides) != list(run.provenance["seeds"]):
        raise AgiqaError(
            f"The run was fitted on splits {run.provenance['seeds']}, the split file holds "
            f"{list(sides)}: run `agiqa fit` again."
        )
    tested, mos = models_of(run.ensemble, features), table.frame[target].to_numpy()
    predictions = _predict(tested, table, features.experts, sides, mos)
    if run.params.fit.preset in RECIPES and recipe(run.params).drop_last_test:
        dropped = _drop_last(predictions, recipe(run.params).batch_size)
        predictions = pd.concat([predictions, dropped], ignore_index=True)
    metrics = _measure(run, predictions)
    if (best := _ceiling(table, target, sides)) is not None:
        metrics["ceiling"] = best
    return Evaluation(predictions, metrics)


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
    tested: Tested,
    table: ImagesTable,
    experts: Sequence[str],
    sides: Mapping[int, Mapping[str, np.ndarray]],
    mos: np.ndarray,
) -> pd.DataFrame:
    parts = []
    described = table.frame[["path", "image_id", "generator", "group"]]
    for place, (seed, side) in enumerate(sides.items()):
        test = side["test"]
        for model in tested.models:
            score, gate = tested.predict(model, place, test)
            part = described.iloc[test].assign(model=model, seed=seed, mos=mos[test], score=score)
            if gate is not None:
                for index, expert in enumerate(experts):
                    part[f"gate_{expert}"] = gate[:, index]
            parts.append(part)
    first = ["model", "seed"]
    whole = pd.concat(parts, ignore_index=True)
    return whole[first + [column for column in whole if column not in first]]


def _drop_last(predictions: pd.DataFrame, batch: int) -> pd.DataFrame:
    """The mixture's rows that fill whole batches after a shuffle, as the authors' loader has it."""
    mixture = predictions[predictions["model"] == MIXTURE]
    parts = []
    for _, part in mixture.groupby("seed", sort=False):
        kept = len(part) // batch * batch or len(part)
        rows = np.random.default_rng(0).permutation(len(part))[:kept]
        parts.append(part.iloc[np.sort(rows)].assign(model=DROPPED))
    return pd.concat(parts, ignore_index=True)


def _measure(run: Run, predictions: pd.DataFrame) -> dict[str, Any]:
    provenance = run.provenance
    per_split: dict[str, list[dict[str, Any]]] = {}
    for model in predictions["model"].unique():
        rows = predictions[predictions["model"] == model]
        per_split[model] = [
            {"seed": int(str(seed)), "images": len(part)}
            | all_metrics(part["mos"].to_numpy(), part["score"].to_numpy())
            for seed, part in rows.groupby("seed", sort=False)
        ]
    names = [name for name in per_split["moe"][0] if name not in ("seed", "images")]
    sides = {
        model: [part for _, part in rows.groupby("seed", sort=False)]
        for model, rows in predictions.groupby("model", sort=False)
    }
    dropped = {model: sides.pop(model) for model in (DROPPED,) if model in sides}
    intervals = model_intervals(sides)  # type: ignore[arg-type]
    if dropped:  # on fewer images than the others
        intervals |= model_intervals(dropped)
    for model, rows in per_split.items():
        for row, found in zip(rows, intervals[model].splits, strict=True):
            row["intervals"] = found
    moe = predictions[predictions["model"] == "moe"]
    gates = [f"gate_{expert}" for expert in provenance["experts"]]
    return {
        "preset": run.params.fit.preset,
        "dataset": provenance["dataset"],
        "synthetic": provenance["synthetic"],
        "target": provenance["target"],
        "protocol": provenance["protocol"],
        "splits": len(provenance["seeds"]),
        "models": {
            model: {
                name: summarise([row[name] for row in rows])
                | dict(zip(("low", "high"), intervals[model].median[name], strict=True))
                for name in names
            }
            for model, rows in per_split.items()
        },
        "intervals": {
            "level": 0.95,
            "of": "median over splits",
            "drawn": intervals["moe"].unit,
            "resamples": RESAMPLES,
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


def _ceiling(
    table: ImagesTable, target: str, sides: Mapping[int, Mapping[str, np.ndarray]]
) -> dict[str, Any] | None:
    """The best that could be reached on the images that some split tests; None where unknown."""
    about = next(each for each in table.targets if each.name == target)
    spread, counts = deviations(table, about), known_raters(table, about)
    raters = assumed_raters(table) if counts is None else counts
    if spread is None or raters is None:
        return None
    tested = np.unique(np.concatenate([side["test"] for side in sides.values()]))
    mos = table.frame[target].to_numpy(dtype=float)
    each = raters if isinstance(raters, int) else raters[tested]
    return {"assumed": counts is None, **asdict(noise_ceiling(mos[tested], spread[tested], each))}
