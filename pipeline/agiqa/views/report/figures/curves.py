"""Splits one by one: the test side's SRCC of every model, and how every network learned."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from agiqa.core.model_names import MODELS, in_order
from agiqa.views.report.figures.style import (
    DOTTED_LINES,
    FAINT,
    INK,
    LINES,
    MARKERS,
    SERIES,
    Json,
    PlotlyFigure,
    named_rows,
    rounded,
    rows_height,
)
from agiqa.views.report.results import MODEL

NETWORKS = ("moe", "visual", "semantic")  # in the order of the page; the last two of old runs


def split_strip(metrics: Mapping[str, Any]) -> PlotlyFigure:
    """Every split's SRCC for every model, the median and its 95 % interval marked."""
    models = in_order(metrics["per_split"])[::-1]
    data: list[Json] = []
    for row, name in enumerate(models):
        splits = [split for split in metrics["per_split"][name] if split["srcc"] is not None]
        colour = SERIES[0] if name == MODEL else FAINT
        data.append(
            MARKERS
            | {
                "x": rounded([split["srcc"] for split in splits]),
                "y": [row] * len(splits),
                "customdata": [split["seed"] for split in splits],
                "hovertemplate": "split %{customdata}: %{x:.4f}<extra></extra>",
                "marker": {"size": 9, "opacity": 0.4, "color": colour},
                "showlegend": False,
            }
        )
        data += _median(metrics["models"].get(name, {}).get("srcc", {}), row)
    labels = ["<br>".join(filter(None, MODELS.get(name, (name, ""))[:2])) for name in models]
    return PlotlyFigure(
        "Every split",
        "SRCC on the test side: a dot for each split; diamond and bar are the median and its 95 % "
        "interval. All models were tested on the same splits.",
        "Dot plot of the SRCC of every split for every model.",
        data,
        {
            "xaxis": {"title": {"text": "SRCC on the test side"}},
            "yaxis": named_rows(labels, range(len(models))),
            "height": rows_height(2 * len(models)),
        },
    )


def _median(figures: Mapping[str, Any], row: int) -> list[Json]:
    middle, low, high = (figures.get(key) for key in ("median", "low", "high"))
    if middle is None or not math.isfinite(middle):
        return []
    has_interval = low is not None and high is not None
    bar = {"type": "data", "array": rounded([high - middle]), "arrayminus": rounded([middle - low]),
           "color": INK, "thickness": 1.5, "width": 5} if has_interval else {}  # fmt: skip
    return [
        MARKERS
        | {
            "x": rounded([middle]),
            "y": [row],
            "error_x": bar,
            "hovertemplate": "median %{x:.4f}"
            + (f", 95 % from {low:.4f} to {high:.4f}" if has_interval else "")
            + "<extra></extra>",
            "marker": {"size": 9, "symbol": "diamond", "color": INK},
            "showlegend": False,
        }
    ]


def learning_curves(curves: pd.DataFrame) -> list[PlotlyFigure]:
    """For each network the SRCC on the validation side by epoch, a line a split, and the median."""
    figures = []
    for index, model in enumerate(NETWORKS):
        rows = curves[(curves["model"] == model) & curves["val_srcc"].notna()]
        if rows.empty:
            continue
        title = MODELS[model][0] + (", " + MODELS[model][1] if model != MODEL else "")
        data: list[Json] = [
            LINES
            | {
                "x": rounded(split_rows["epoch"]),
                "y": rounded(split_rows["val_srcc"]),
                "opacity": 0.45,
                "line": {"color": SERIES[index], "width": 1.2},
                "hovertemplate": f"split {seed}, epoch %{{x}}: %{{y:.4f}}<extra></extra>",
                "showlegend": False,
            }
            for seed, split_rows in rows.groupby("seed", sort=False)
        ]
        by_epoch = rows.groupby("epoch")["val_srcc"]
        most = by_epoch.count() * 2 >= rows["seed"].nunique()  # of the rest the median says little
        middle = by_epoch.median()[most]
        data.append(
            DOTTED_LINES
            | {
                "x": rounded(middle.index),
                "y": rounded(middle),
                "line": {"color": SERIES[index], "width": 3},
                "marker": {"size": 6, "color": SERIES[index]},
                "hovertemplate": "median, epoch %{x}: %{y:.4f}<extra></extra>",
                "showlegend": False,
            }
        )
        layout = {
            "xaxis": {"title": {"text": "epoch"}, "nticks": 8},
            "yaxis": {"title": {"text": "validation SRCC"}, "nticks": 6},
            "height": 280,
        }
        spoken = f"Learning curves of {len(data) - 1} splits: {title}."
        figures.append(PlotlyFigure(title, "", spoken, data, layout))
    return figures
