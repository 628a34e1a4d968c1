"""Stage 2, `evaluate`: the test side of every split, read once, scored and measured.

SRCC, KRCC, PLCC, RMSE and MAE of raw scores; PLCC and RMSE again after the 4-parameter logistic, as
the field does, where a split tests enough images. Median, mean and standard deviation over the
splits, with 95 % intervals of the median and of each split (`statistics.intervals` says what they
hold for), why something of these is not defined, how many scores lie outside the scale of the
training, and the ceiling that the raters' own noise sets, where the data set gives their
deviations; every test image is scored. The
preset `paper` gives, beside, the figures that the authors' loader would: it shuffles the test side
and drops the images that do not fill a batch, a few of them, others each time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agiqa.core.errors import AgiqaError
from agiqa.core.json_text import write_json
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.metric_names import FIGURES
from agiqa.data.metrics import all_metrics, plcc, srcc, summarise
from agiqa.data.statistics.ceiling import assumed_raters, deviations, known_raters, noise_ceiling
from agiqa.data.statistics.intervals import LEVEL, RESAMPLES, Drawn, draw, model_intervals
from agiqa.runs.files import SCATTER, SUMMARY, Run
from agiqa.runs.predictions import PREDICTIONS
from agiqa.runs.records import METRICS
from agiqa.stage2.features import Features, require_same_stores
from agiqa.stage2.paper.ensemble import PaperEnsemble
from agiqa.stage2.paper.inputs import PaperInputs, require_width
from agiqa.stage2.predictors import MIXTURE, Opinion, models_of
from agiqa.stage2.presets import RECIPES, recipe

DROPPED = "moe_drop_last"  # the mixture on the images that the authors' test loader leaves
LEAST_IMAGES = 10  # a generator's correlation on fewer test images of a split says nothing


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` writes of one target: into a run, or into a folder of results in it."""

    predictions: pd.DataFrame  # model, seed, path, image_id, generator, group, mos, score, gate_*
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Exam:
    """What a run is tested on."""

    table: ImagesTable
    features: Features | PaperInputs  # of the table's images, as the run's preset takes them
    sides: Mapping[int, Mapping[str, np.ndarray]]  # by split seed, row numbers of the test side
    columns: Sequence[str | None]  # of the run's targets, in the table; None: it has no such
    protocol: str
    scale: int = 0  # on the scale of which of the run's data sets it scores
    splits_sha256: str = ""
    leaks: Sequence[Mapping[str, Any]] = ()  # of the splits


def evaluate(run: Run, exam: Exam) -> list[Evaluation]:
    """Score the test sides with every model of the run; one evaluation for each target there.

    Raises:
        AgiqaError: features made in another way than the run's, or other splits.
    """
    features, table = exam.features, exam.table
    if isinstance(run.ensemble, PaperEnsemble):
        width = run.ensemble.config.semantic_width
        require_width(features.semantic.shape[-1], width, f"The store of '{table.name}'")
    require_same_stores(run.provenance["stores"], features.stores)
    if list(exam.sides) != list(run.provenance["seeds"]):
        raise AgiqaError(
            f"The run was fitted on splits {run.provenance['seeds']}, the split file of "
            f"'{table.name}' holds {list(exam.sides)}: run `agiqa fit` again."
        )
    tested = models_of(run.ensemble, features, exam.scale)
    opinions = {
        (model, seed): tested.predict(model, place, side["test"])
        for place, (seed, side) in enumerate(exam.sides.items())
        for model in tested.models
    }
    return [
        _evaluation(run, exam, opinions, place, column)
        for place, column in enumerate(exam.columns)
        if column is not None
    ]


Opinions = Mapping[tuple[str, int], Opinion]  # by model and seed, of the split's test side


def _evaluation(run: Run, exam: Exam, opinions: Opinions, place: int, column: str) -> Evaluation:
    """Of the run's target at `place`, which the table calls `column`."""
    predictions = _predictions(exam, opinions, place, column)
    if run.params.fit.preset in RECIPES and recipe(run.params).drop_last_test:
        dropped = _drop_last(predictions, recipe(run.params).batch_size)
        predictions = pd.concat([predictions, dropped], ignore_index=True)
    metrics = _measure(run, exam, predictions, place, column)
    if (best := _ceiling(exam, column)) is not None:
        metrics["ceiling"] = best
    return Evaluation(predictions, metrics)


def write_evaluation(run: Path, evaluation: Evaluation) -> None:
    """Add predictions, metrics, their summary and the scatter to a run, or to a folder in it."""
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


def _predictions(exam: Exam, opinions: Opinions, place: int, column: str) -> pd.DataFrame:
    """One row for each model, split and tested image."""
    parts: list[pd.DataFrame] = []
    described = exam.table.frame[["path", "image_id", "generator", "group"]]
    mos = exam.table.frame[column].to_numpy()
    for (model, seed), (score, gate) in opinions.items():
        test = exam.sides[seed]["test"]
        rated = np.isfinite(mos[test])
        part = described.iloc[test].assign(
            model=model, seed=seed, mos=mos[test], score=score[:, place]
        )
        if gate is not None:
            for index, expert in enumerate(exam.features.experts):
                part[f"gate_{expert}"] = gate[:, index, place]
        parts.append(part[rated])
    first = ["model", "seed"]
    whole = pd.concat(parts, ignore_index=True)
    return whole[first + [name for name in whole if name not in first]]


def _drop_last(predictions: pd.DataFrame, batch: int) -> pd.DataFrame:
    """The mixture's rows that fill whole batches after a shuffle, as the authors' loader has it."""
    mixture = predictions[predictions["model"] == MIXTURE]
    parts = []
    for _, part in mixture.groupby("seed", sort=False):
        kept = len(part) // batch * batch or len(part)
        rows = np.random.default_rng(0).permutation(len(part))[:kept]
        parts.append(part.iloc[np.sort(rows)].assign(model=DROPPED))
    return pd.concat(parts, ignore_index=True)


def _measure(
    run: Run, exam: Exam, predictions: pd.DataFrame, place: int, column: str
) -> dict[str, Any]:
    provenance, mos = run.provenance, exam.table.frame[column]
    per_split: dict[str, list[dict[str, Any]]] = {}
    for model in predictions["model"].unique():
        rows = predictions[predictions["model"] == model]
        per_split[model] = [
            {"seed": int(str(seed)), "images": len(part)}
            | all_metrics(part["mos"].to_numpy(), part["score"].to_numpy())
            for seed, part in rows.groupby("seed", sort=False)
        ]
    sides = {
        model: [part for _, part in rows.groupby("seed", sort=False)]
        for model, rows in predictions.groupby("model", sort=False)
    }
    dropped = {model: sides.pop(model) for model in (DROPPED,) if model in sides}
    drawn = draw(sides[MIXTURE])
    intervals = model_intervals(sides, per_split, drawn)  # type: ignore[arg-type]
    if dropped:  # on fewer images than the others
        intervals |= model_intervals(dropped, per_split, draw(dropped[DROPPED]))
    for model, rows in per_split.items():
        for row, bounds, why in zip(
            rows, intervals[model].splits, intervals[model].why_splits, strict=True
        ):
            row["intervals"] = bounds
            if why:
                row["why"] = why
    moe = predictions[predictions["model"] == "moe"]
    gates = [f"gate_{expert}" for expert in provenance["experts"]]
    return {
        "preset": run.params.fit.preset,
        "dataset": exam.table.name,
        "trained_on": provenance["trained_on"],
        "synthetic": exam.table.synthetic,
        "target": column,
        "mos": {"low": float(mos.min()), "high": float(mos.max())},
        "protocol": exam.protocol,
        "splits": len(exam.sides),
        "splits_sha256": exam.splits_sha256,
        "leaks": [dict(leak) for leak in exam.leaks],
        "outside_scale": _outside(run, exam, moe, place, column),
        "models": {
            model: {
                name: summarise([row[name] for row in rows])
                | dict(zip(("low", "high"), intervals[model].median[name], strict=True))
                | ({"why": intervals[model].why[name]} if name in intervals[model].why else {})
                for name in FIGURES
            }
            for model, rows in per_split.items()
        },
        "intervals": {"level": LEVEL, "of": "median over splits", **_about(drawn)},
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


def _about(drawn: Drawn) -> dict[str, Any]:
    """What the bootstrap drew, how many of them a test side holds at least, why that is too few."""
    about = {"drawn": drawn.unit, "units": min(drawn.sizes), "resamples": RESAMPLES}
    return about | ({"too_few": drawn.too_few} if drawn.too_few else {})


def _outside(
    run: Run, exam: Exam, moe: pd.DataFrame, place: int, column: str
) -> dict[str, Any] | None:
    """How many of the mixture's scores lie beyond the MOS that the scale was learnt from.

    Of another data set's images the scale is the run's own, known for its first target alone.
    """
    mos = exam.table.frame[column]
    low, high = float(mos.min()), float(mos.max())
    if exam.table.name not in run.provenance["trained_on"]:
        if place:
            return None
        low, high = (float(run.provenance["mos"][end]) for end in ("low", "high"))
    below, above = int((moe["score"] < low).sum()), int((moe["score"] > high).sum())
    return {"low": low, "high": high, "scores": len(moe), "below": below, "above": above}


def _by_generator(moe: pd.DataFrame) -> dict[str, Any]:
    """Within each generator's test images: over the splits, and how many, that have enough."""
    found: dict[str, Any] = {}
    for generator, rows in moe.groupby("generator"):
        parts = [part for _, part in rows.groupby("seed")]
        measured = [
            {"srcc": srcc(part["mos"], part["score"]), "plcc": plcc(part["mos"], part["score"])}
            for part in parts
            if len(part) >= LEAST_IMAGES
        ]
        images = rows.groupby("path")[["mos", "score"]].mean()  # each counts once
        found[str(generator)] = {
            "images": len(images),
            "most_a_split": max(map(len, parts)),
            "least_for_correlation": LEAST_IMAGES,
            "splits": len(measured),  # that have enough
            "mean_mos": float(images["mos"].mean()),
            "mean_score": float(images["score"].mean()),
            "srcc": summarise([each["srcc"] for each in measured]),
            "plcc": summarise([each["plcc"] for each in measured]),
        }
    return found


def _ceiling(exam: Exam, column: str) -> dict[str, Any] | None:
    """The best that could be reached on the images that some split tests; None where unknown."""
    about = next(each for each in exam.table.targets if each.name == column)
    spread, counts = deviations(exam.table, about), known_raters(exam.table, about)
    raters = assumed_raters(exam.table) if counts is None else counts
    if spread is None or raters is None:
        return None
    tested = np.unique(np.concatenate([side["test"] for side in exam.sides.values()]))
    mos = exam.table.frame[column].to_numpy(dtype=float)
    tested = tested[np.isfinite(mos[tested])]
    each = raters if isinstance(raters, int) else raters[tested]
    return {"assumed": counts is None, **asdict(noise_ceiling(mos[tested], spread[tested], each))}
