"""Predicted score against MOS: every image, and in bins."""

from typing import Any

import numpy as np
import pandas as pd

from agiqa.data.metric_names import LEAST_FOR_FITTED
from agiqa.data.metrics import fit_logistic
from agiqa.views.report.figures import style
from agiqa.views.report.figures.style import Json, PlotlyFigure, rounded, safe

LINE_POINTS = 120  # of the fitted logistic
MOST_SERIES = 10  # generators that get a colour and a marker; the rest share one


def scatter_figure(images: pd.DataFrame, truth: str) -> PlotlyFigure:
    """One point an image of `average_images`; the points come from the page's columns."""
    low, high = 0.0, 1.0
    if len(images):
        values = images[["score", "mos"]].to_numpy()
        room = 0.04 * float(values.max() - values.min()) or 0.5
        low, high = round(float(values.min()) - room, 3), round(float(values.max()) + room, 3)
    scale = {"range": [low, high], "showgrid": False}
    data = [*_points(images), style.exact_line(low, high)]
    if len(images) >= LEAST_FOR_FITTED:
        score, fitted = _logistic(images)
        data.append(
            style.LINES
            | {"name": "fitted logistic", "x": rounded(score), "y": rounded(fitted),
               "line": {"color": style.INK, "width": 2}, "hoverinfo": "skip"}
        )  # fmt: skip
    return PlotlyFigure(
        f"Predicted score against {truth}",
        f"One point for each of {len(images):,} images: the mixture of experts' score, averaged "
        "over the splits in which the image was tested. A click on a generator's name hides it, "
        "twice leaves it alone. Point at an image, or "
        "press the arrow keys on the plot.",
        f"Scatter plot of {len(images):,} images: predicted score across, {truth} upwards.",
        data,
        {
            "xaxis": {"title": {"text": "predicted score"}} | scale,
            "yaxis": {"title": {"text": truth}} | scale,
            "legend": style.LEGEND,
            "hovermode": "closest",
            "height": 560,
        },
    )


def _points(images: pd.DataFrame) -> list[Json]:
    """A series for each generator, the rarest beneath the others as one."""
    named = [str(name) for name in images["generator"].value_counts().index]
    series = [
        (
            name or "all images",
            [name],
            style.SERIES[index % len(style.SERIES)],
            style.SYMBOLS[index % len(style.SYMBOLS)],
        )
        for index, name in enumerate(named[:MOST_SERIES])
    ]
    if other_names := named[MOST_SERIES:]:
        series.insert(0, (f"{len(other_names)} others", other_names, style.FAINT, "circle"))
    size, opacity = (4, 0.45) if len(images) > 4000 else (6, 0.6)
    return [
        style.MARKERS
        | {
            "name": safe(label),
            "meta": {"generators": generators},
            "hoverinfo": "none",
            "marker": {"size": size, "opacity": opacity, "color": colour, "symbol": symbol},
        }
        for label, generators, colour, symbol in series
    ]


def calibration_figure(table: pd.DataFrame, truth: str) -> PlotlyFigure:
    """Mean MOS of images of about the same score and their middle 80 %, `summaries.calibration`."""
    score = rounded(table["score"])
    words = [
        f"score {s:.2f}: {safe(truth)} {m:.2f} on average<br>80 % from {low:.2f} to {high:.2f}, "
        f"{count:,} images<extra></extra>"
        for s, m, low, high, count in zip(
            table["score"], table["mos"], table["p10"], table["p90"], table["images"], strict=True
        )
    ]
    low, high = 0.0, 1.0
    if len(table):
        low = float(table[["score", "p10"]].to_numpy().min())
        high = float(table[["score", "p90"]].to_numpy().max())
    data = [
        style.band(score, table, style.SERIES[0]),
        style.exact_line(low, high),
        style.DOTTED_LINES
        | {"name": f"mean {truth}", "x": score, "y": rounded(table["mos"]), "hovertemplate": words,
           "line": {"color": style.SERIES[0], "width": 2},
           "marker": {"size": 8, "color": style.SERIES[0]}},
    ]  # fmt: skip
    return PlotlyFigure(
        "Calibration",
        f"Images in {len(table)} bins by their score, as many in each: the mean {truth}, and the "
        f"middle 80 % of it. Below the dashed line the model is too kind.",
        f"Line of the mean {truth} against the mean score in {len(table)} bins.",
        data,
        {
            "xaxis": {"title": {"text": "mean predicted score of a bin"}},
            "yaxis": {"title": {"text": truth}},
            "legend": style.LEGEND,
            "height": 400,
        },
    )


def _logistic(images: pd.DataFrame) -> tuple[Any, Any]:
    """The curve that was fitted to all images, at places spread over the scores."""
    ordered = images.sort_values("score")
    fitted = fit_logistic(images["mos"].to_numpy(), images["score"].to_numpy())
    curve = pd.Series(fitted, index=images.index)[ordered.index].to_numpy()
    rows = np.unique(np.linspace(0, len(ordered) - 1, LINE_POINTS).round().astype(int))
    return ordered["score"].to_numpy()[rows], curve[rows]
