"""The figures of predictions, as metrics.json has them.

SRCC, KRCC, PLCC, RMSE and MAE of raw scores; PLCC and RMSE again after the 4-parameter logistic, as
the field does, where a split tests enough images. Median, mean and standard deviation over the
splits, with 95 % intervals of the median and of each split (`statistics.intervals` says what they
hold for), why something of these is not defined, and the ceiling that the raters' own noise sets,
where the data set gives their deviations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from agiqa.data.datasets.table import ImagesTable
from agiqa.data.metric_names import FIGURES
from agiqa.data.metrics import all_metrics, plcc, srcc, summarise
from agiqa.data.statistics.ceiling import known_raters, noise_ceiling
from agiqa.data.statistics.intervals import LEVEL, RESAMPLES, Intervals, draw, model_intervals
from agiqa.data.statistics.paired import corrected_t_test
from agiqa.runs.records import GATE, HIGH, LOW
from agiqa.stage2.features import Sides
from agiqa.stage2.presets import CONSTANT, INTERVAL_LEVEL, MIXTURE

MOS_RANGES = 4  # with as many images each, in which the coverage is counted
LEAST_IMAGES = 10  # a generator's correlation on fewer test images of a split says nothing


def measure(
    predictions: pd.DataFrame,
    extra_models: Sequence[str],
    experts: Sequence[str],
    gating: Mapping[str, Any] | None = None,
    main: str = MIXTURE,
) -> dict[str, Any]:
    """Figures by model, generator and expert.

    Args:
        predictions: rows of each model, split and tested image.
        extra_models: which of the models are the mixture on some of the images alone.
        experts: names of the gate's weights.
        gating: of `describe_gating`, where validation chose between a gate and a constant mixture.
        main: the model whose figures stand by generator.
    """
    sides = {
        str(model): [part for _, part in rows.groupby("seed", sort=False)]
        for model, rows in predictions.groupby("model", sort=False)
    }
    per_split: dict[str, list[dict[str, Any]]] = {
        model: [
            {"seed": int(part["seed"].iloc[0]), "images": len(part)}
            | all_metrics(part["mos"].to_numpy(), part["score"].to_numpy())
            for part in parts
        ]
        for model, parts in sides.items()
    }
    whole = {model: parts for model, parts in sides.items() if model not in extra_models}
    drawn = draw(whole[main])
    intervals = model_intervals(whole, per_split, drawn)
    for extra in extra_models:  # on fewer images than the others
        intervals |= model_intervals({extra: sides[extra]}, per_split, draw(sides[extra]))
    # What the bootstrap drew, how many of them a test side holds at least, why that is too few.
    about = {"drawn": drawn.unit, "units": min(drawn.sizes), "resamples": RESAMPLES}
    about |= {"too_few": drawn.too_few} if drawn.too_few else {}
    mixture = predictions[predictions["model"] == main]
    return {
        "models": {
            model: _over_splits(rows, intervals[model]) for model, rows in per_split.items()
        },
        "intervals": {"level": LEVEL, "of": "median over splits", **about},
        "generators": _by_generator(mixture),
        "gate": {expert: _gate_weight(mixture, GATE + expert) for expert in experts},
        **({"gating": gating} if gating else {}),
        **({"coverage": _coverage(mixture)} if HIGH in mixture else {}),
        "per_split": per_split,
    }


def _gate_weight(mixture: pd.DataFrame, column: str) -> dict[str, float]:
    """An expert's share of the images: its mean, and its deviation within a split."""
    deviation = mixture.groupby("seed")[column].std(ddof=0)
    return {"mean": float(mixture[column].mean()), "sd": float(deviation.mean())}


def _over_splits(rows: Sequence[dict[str, Any]], own: Intervals) -> dict[str, Any]:
    """Sum up a model's figures by name, and note in its rows, one a split, their intervals."""
    for row, bounds, why in zip(rows, own.splits, own.why_splits, strict=True):
        row["intervals"] = bounds
        if why:
            row["why"] = why
    return {
        name: summarise([row[name] for row in rows])
        | dict(zip(("low", "high"), own.median[name], strict=True))
        | ({"why": own.why[name]} if name in own.why else {})
        for name in FIGURES
    }


def describe_gating(
    predictions: pd.DataFrame, epochs: Sequence[int], leaks: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What the gate adds to the one constant mixture that it was trained from.

    Args:
        predictions: rows of each model, split and tested image.
        epochs: of each split's gate, 0 where validation found nothing better than constant.
        leaks: of the splits, which say how large their sides are.

    Returns:
        `epochs`; `deviation`, of the weights over the images of a test side, of the expert whose
        weight moves most, mean over the splits; `gain` in SRCC: mean, 95 % interval and p of the
        corrected resampled t-test.
    """
    srccs = {
        model: [srcc(part["mos"], part["score"]) for _, part in rows.groupby("seed", sort=False)]
        for model, rows in predictions.groupby("model", sort=False)
        if model in (MIXTURE, CONSTANT)
    }
    gains = np.subtract(srccs[MIXTURE], srccs[CONSTANT])
    mixture = predictions[predictions["model"] == MIXTURE]
    weights = [name for name in map(str, mixture) if name.startswith(GATE)]
    deviations = mixture.groupby("seed")[weights].std(ddof=0)
    test = corrected_t_test(gains.tolist(), sides_ratio(leaks))
    return {
        "epochs": list(epochs),
        "deviation": float(deviations.max(axis=1).mean()),
        "gain": {name: getattr(test, name) for name in ("mean", "low", "high", "p")},
    }


def sides_ratio(leaks: Sequence[Mapping[str, Any]]) -> float:
    """Images of a test side for each training image, of the splits that `leaks` describes."""
    train = sum(leak["train"] for leak in leaks)
    return sum(leak["test"] for leak in leaks) / train if train else 2 / 7


def best_possible(table: ImagesTable, column: str, sides: Sides) -> dict[str, Any]:
    """`ceiling`, the best that could be reached on images that some split tests, where known."""
    about = next(target for target in table.targets if target.name == column)
    raters = known_raters(table, about)
    if not about.deviation or raters is None:
        return {}
    tested = np.unique(np.concatenate([side["test"] for side in sides.values()]))
    mos = table.frame[column].to_numpy(dtype=float)
    spread = table.frame[about.deviation].to_numpy(dtype=float)
    tested = tested[np.isfinite(mos[tested])]
    ceiling = noise_ceiling(mos[tested], spread[tested], raters[tested])
    return {"ceiling": {"assumed": False, **asdict(ceiling)}}  # as earlier versions: AGIQA-3K's


def _coverage(mixture: pd.DataFrame) -> dict[str, Any]:
    """How many of the tested images' MOS the prediction intervals hold: all, and parts of them."""
    rows = mixture.dropna(subset=[LOW, HIGH])
    rows = rows.assign(covered=(rows["mos"] >= rows[LOW]) & (rows["mos"] <= rows[HIGH]))

    def part(chosen: pd.DataFrame) -> dict[str, Any]:
        return {"images": chosen["path"].nunique(), "covered": float(chosen["covered"].mean())}

    ends = np.unique(rows["mos"].quantile(np.linspace(0, 1, MOS_RANGES + 1)))
    quarter = np.searchsorted(ends[1:-1], rows["mos"], side="right")
    return {
        "level": INTERVAL_LEVEL,
        "width": float((rows[HIGH] - rows[LOW]).mean()),
        **part(rows),
        "splits": [float(side["covered"].mean()) for _, side in rows.groupby("seed", sort=False)],
        "generators": {str(name): part(own) for name, own in rows.groupby("generator")},
        "ranges": [
            {"low": float(ends[k]), "high": float(ends[k + 1]), **part(rows[quarter == k])}
            for k in range(len(ends) - 1)
        ],
    }


def _by_generator(mixture: pd.DataFrame) -> dict[str, Any]:
    """Within each generator's test images: over the splits, and how many, that have enough."""
    generators: dict[str, Any] = {}
    for generator, rows in mixture.groupby("generator"):
        parts = [part for _, part in rows.groupby("seed")]
        large = [part for part in parts if len(part) >= LEAST_IMAGES]
        images = rows.groupby("path")[["mos", "score"]].mean()  # each counts once
        generators[str(generator)] = {
            "images": len(images),
            "most_a_split": max(map(len, parts)),
            "least_for_correlation": LEAST_IMAGES,
            "splits": len(large),  # that have enough
            "mean_mos": float(images["mos"].mean()),
            "mean_score": float(images["score"].mean()),
            "srcc": summarise([srcc(part["mos"], part["score"]) for part in large]),
            "plcc": summarise([plcc(part["mos"], part["score"]) for part in large]),
        }
    return generators
