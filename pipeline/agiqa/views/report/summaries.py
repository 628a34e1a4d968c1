"""The run's images in groups and bins: what the page's figures draw and `dvc plots` gets as CSV.

A residual is score − MOS: above zero the model is too kind. Every function takes the rows of
`average_images` or `Results.predictions` and gives a small table, one row a box, dot or bin.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from agiqa.runs.records import GATE

BINS = 10  # of the calibration and of the gate against MOS
RANGES = 8  # of the MOS, for the residuals
MOST = 24  # generators, or prompts, that a figure has room for
LEAST_IMAGES = 3  # of a prompt whose mean residual is shown
QUANTILES = {"p10": 0.1, "q1": 0.25, "median": 0.5, "q3": 0.75, "p90": 0.9}


def residuals_by_generator(images: pd.DataFrame) -> pd.DataFrame:
    """Residuals of each of the largest generators, lowest mean first.

    Columns: generator, images, mean, sd, p10, q1, median, q3, p90.
    """
    largest = images["generator"].value_counts().index[:MOST]
    rows = [
        ((str(name) or "all images",), images["error"][images["generator"] == name])
        for name in largest
    ]
    return _spreads(["generator"], rows).sort_values("mean", ignore_index=True)


def residuals_by_range(images: pd.DataFrame, low: float, high: float) -> pd.DataFrame:
    """Residuals in equal ranges of the MOS between `low` and `high`; empty ranges are left out.

    Columns: low, high, images, mean, sd, p10, q1, median, q3, p90.
    """
    edges = np.linspace(low, high, RANGES + 1)
    ranges = np.clip(np.searchsorted(edges, images["mos"], side="right") - 1, 0, RANGES - 1)
    rows = [((edges[k], edges[k + 1]), images["error"][ranges == k]) for k in np.unique(ranges)]
    return _spreads(["low", "high"], rows)


def residuals_by_prompt(images: pd.DataFrame) -> pd.DataFrame:
    """The prompts that the model misjudges most, in both directions, by their mean residual.

    A prompt is a group of the data set; those of fewer than LEAST_IMAGES images are left out.

    Columns: group, images, mean, sd; lowest mean first.
    """
    grouped = images[images["group"] != ""].groupby("group")["error"]
    table = grouped.agg(images="size", mean="mean", sd="std").reset_index()
    table = table[table["images"] >= LEAST_IMAGES].sort_values(["mean", "group"], ignore_index=True)
    half = MOST // 2
    return table if len(table) <= MOST else pd.concat([table[:half], table[-half:]])


def calibration(images: pd.DataFrame) -> pd.DataFrame:
    """MOS in bins of the score, as many images in each.

    Columns: score and mos (means), images, sd (of the MOS), p10, q1, median, q3, p90 (of the MOS).
    """
    rows = [
        ((float(group["score"].mean()), float(group["mos"].mean())), group["mos"])
        for group in _bins(images, "score")
    ]
    return _spreads(["score", "mos"], rows).drop(columns="mean")


def gate_by_generator(predictions: pd.DataFrame, experts: Sequence[str]) -> pd.DataFrame:
    """The gate's weight for each expert within each of the largest generators.

    Columns: expert, generator, images, mean, sd, p10, q1, median, q3, p90. Generators stand in the
    order of their median weight for the first expert, the same for all.
    """
    groups = dict(list(predictions.groupby("generator")))
    largest = sorted(groups, key=lambda name: -len(groups[name]))[:MOST]
    order = sorted(largest, key=lambda name: groups[name][GATE + experts[0]].median())
    rows = [
        ((expert, str(name) or "all images"), groups[name][GATE + expert])
        for expert in experts
        for name in order
    ]
    return _spreads(["expert", "generator"], rows)


def gate_by_mos(images: pd.DataFrame, experts: Sequence[str]) -> pd.DataFrame:
    """The gate's weight for each expert in bins of the MOS, as many images in each.

    Columns: expert, mos (mean of the bin), images, mean, sd, p10, q1, median, q3, p90.
    """
    rows = [
        ((expert, float(group["mos"].mean())), group[GATE + expert])
        for expert in experts
        for group in _bins(images, "mos")
    ]
    return _spreads(["expert", "mos"], rows)


def _spreads(
    labels: Sequence[str], groups: Iterable[tuple[tuple[object, ...], "pd.Series[float]"]]
) -> pd.DataFrame:
    """A row for each group of values: its labels, count, mean, deviation and quantiles."""
    rows = []
    for names, every_value in groups:
        values = every_value.dropna()
        points = values.quantile(list(QUANTILES.values())).tolist()
        rows.append((*names, len(values), float(values.mean()), float(values.std()), *points))
    return pd.DataFrame(rows, columns=[*labels, "images", "mean", "sd", *QUANTILES])


def _bins(images: pd.DataFrame, column: str) -> list[pd.DataFrame]:
    ordered = images.sort_values([column, "path"])
    parts = np.array_split(np.arange(len(ordered)), min(BINS, max(1, len(ordered) // 5)))
    return [ordered.iloc[part] for part in parts if len(part)]
