"""Splits one by one: the test side's SRCC of every model, and how every network learned.

Several runs on the same splits stand side by side: differences from the first, each run's splits.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from agiqa.core.model_names import MODELS, in_order
from agiqa.views.report.figures import style
from agiqa.views.report.figures.style import Json, PlotlyFigure, rounded, safe
from agiqa.views.report.results import MODEL, Results


def split_strip(metrics: Mapping[str, Any]) -> PlotlyFigure:
    """Every split's SRCC for every model, the median and its 95 % interval marked."""
    models = in_order(metrics["per_split"])[::-1]
    data: list[Json] = []
    for row, name in enumerate(models):
        splits = [split for split in metrics["per_split"][name] if split["srcc"] is not None]
        colour = style.SERIES[0] if name == MODEL else style.FAINT
        data.append(
            style.MARKERS
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
            "yaxis": style.named_rows(labels, range(len(models))),
            "height": style.rows_height(2 * len(models)),
        },
    )


def _median(figures: Mapping[str, Any], row: int) -> list[Json]:
    middle, low, high = (figures.get(key) for key in ("median", "low", "high"))
    if middle is None or not math.isfinite(middle):
        return []
    has_interval = low is not None and high is not None
    bar = {"type": "data", "array": rounded([high - middle]), "arrayminus": rounded([middle - low]),
           "color": style.INK, "thickness": 1.5, "width": 5} if has_interval else {}  # fmt: skip
    return [
        style.MARKERS
        | {
            "x": rounded([middle]),
            "y": [row],
            "error_x": bar,
            "hovertemplate": "median %{x:.4f}"
            + (f", 95 % from {low:.4f} to {high:.4f}" if has_interval else "")
            + "<extra></extra>",
            "marker": {"size": 9, "symbol": "diamond", "color": style.INK},
            "showlegend": False,
        }
    ]


def learning_curves(curves: pd.DataFrame) -> PlotlyFigure | None:
    """The mixture's SRCC on the validation side by epoch, a line a split, and the median.

    None where nothing was trained by epochs.
    """
    rows = curves[(curves["model"] == MODEL) & curves["val_srcc"].notna()]
    if rows.empty:
        return None
    data: list[Json] = [
        style.LINES
        | {
            "x": rounded(split_rows["epoch"]),
            "y": rounded(split_rows["val_srcc"]),
            "opacity": 0.45,
            "line": {"color": style.SERIES[0], "width": 1.2},
            "hovertemplate": f"split {seed}, epoch %{{x}}: %{{y:.4f}}<extra></extra>",
            "showlegend": False,
        }
        for seed, split_rows in rows.groupby("seed", sort=False)
    ]
    by_epoch = rows.groupby("epoch")["val_srcc"]
    most = by_epoch.count() * 2 >= rows["seed"].nunique()  # of the rest the median says little
    middle = by_epoch.median()[most]
    data.append(
        style.DOTTED_LINES
        | {
            "x": rounded(middle.index),
            "y": rounded(middle),
            "line": {"color": style.SERIES[0], "width": 3},
            "marker": {"size": 6, "color": style.SERIES[0]},
            "hovertemplate": "median, epoch %{x}: %{y:.4f}<extra></extra>",
            "showlegend": False,
        }
    )
    layout = {
        "xaxis": {"title": {"text": "epoch"}, "nticks": 8},
        "yaxis": {"title": {"text": "validation SRCC"}, "nticks": 6},
        "height": 280,
    }
    title = MODELS[MODEL][0]
    spoken = f"Learning curves of {len(data) - 1} splits: {title}."
    return PlotlyFigure(title, "", spoken, data, layout)


def difference_figure(comparison: Mapping[str, Any]) -> PlotlyFigure:
    """SRCC of each run minus the first run's, with both 95 % intervals of `runs.compare`."""
    comparisons = comparison["comparisons"]
    rows = [float(row) for row in range(len(comparisons))][::-1]
    names = [safe(style.shortened(pair["name"], 40)) for pair in comparisons]
    figures = [pair["figures"]["srcc"] for pair in comparisons]
    return PlotlyFigure(
        "SRCC gained or lost",
        f"Mean difference from {comparison['contenders'][0]['name']} over the same splits, with "
        "95 % intervals: over splits by the corrected resampled t-test, over images by the paired "
        "bootstrap.",
        f"Differences in SRCC of {len(comparisons)} runs from the first.",
        [
            _bars(figures, [row + 0.12 for row in rows], "", "over splits", 0),
            _bars(figures, [row - 0.12 for row in rows], "image_", "over images", 1),
        ],
        {
            "xaxis": {"title": {"text": "difference in SRCC"}},
            "yaxis": style.named_rows(names, rows),
            "legend": style.LEGEND,
            "shapes": [style.line(up=0)],
            "height": style.rows_height(2 * len(rows) + 1),
        },
    )


def _bars(
    figures: Sequence[Mapping[str, Any]], rows: list[float], interval: str, over: str, series: int
) -> Json:
    """The differences with one kind of interval; no bar where there is none."""

    def to(end: str) -> list[float | None]:
        return rounded([abs(figure[interval + end] - figure["mean"]) for figure in figures], 5)

    return style.MARKERS | {
        "name": over,
        "x": rounded([figure["mean"] for figure in figures], 5),
        "y": rows,
        "error_x": {"type": "data", "array": to("high"), "arrayminus": to("low"), "thickness": 1.6,
                    "width": 5, "color": style.SERIES[series]},
        "marker": {"size": 9, "color": style.SERIES[series], "symbol": style.SYMBOLS[series]},
        "hovertemplate": f"%{{x:+.4f}} {over}<extra></extra>",
    }  # fmt: skip


def splits_figure(runs: Sequence[Results]) -> PlotlyFigure:
    """SRCC of every split for every run, joined so that pairs are seen."""
    data: list[Json] = []
    for index, run in enumerate(runs):
        rows = run.metrics["per_split"][MODEL]
        data.append(
            style.DOTTED_LINES
            | {
                "name": safe(style.shortened(run.name, 40)),
                "x": [str(row["seed"]) for row in rows],
                "y": rounded([row["srcc"] for row in rows]),
                "line": {
                    "color": style.SERIES[index % len(style.SERIES)], "width": 1.6,
                    "dash": style.DASHES[index % len(style.DASHES)],
                },
                "marker": {"size": 8, "symbol": style.SYMBOLS[index % len(style.SYMBOLS)]},
                "hovertemplate": "split %{x}: %{y:.4f}<extra></extra>",
            }
        )  # fmt: skip
    return PlotlyFigure(
        "Split by split",
        "SRCC on the test side of the same splits.",
        f"Lines of the SRCC of every split for {len(runs)} runs.",
        data,
        {
            "xaxis": {"title": {"text": "split"}, "type": "category"},
            "yaxis": {"title": {"text": "SRCC"}},
            "legend": style.LEGEND,
            "height": 360,
        },
    )
