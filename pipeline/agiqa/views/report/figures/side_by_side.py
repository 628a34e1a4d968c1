"""Several runs on the same splits: differences from the first, and every split of each."""

from collections.abc import Mapping, Sequence
from typing import Any

from agiqa.views.report.figures.style import (
    DASHES,
    SERIES,
    SYMBOLS,
    Figure,
    Json,
    line,
    rounded,
    rows_height,
    safe,
    shortened,
)
from agiqa.views.report.results import MODEL, Results


def difference_figure(comparison: Mapping[str, Any]) -> Figure:
    """SRCC of each run minus the first run's, with both 95 % intervals.

    Args:
        comparison: of `agiqa.runs.compare.compare`.
    """
    found = comparison["comparisons"]
    rows = [float(place) for place in range(len(found))][::-1]
    names = [shortened(each["name"], 40) for each in found]
    data: list[Json] = [
        _bars(found, [row + shift for row in rows], low, high, what, place)
        for place, (low, high, shift, what) in enumerate(
            (
                ("low", "high", 0.12, "over splits"),
                ("image_low", "image_high", -0.12, "over images"),
            )
        )
    ]
    return Figure(
        "SRCC gained or lost",
        f"Mean difference from {comparison['contenders'][0]['name']} over the same splits, with "
        "95 % intervals: over splits by the corrected resampled t-test, over images by the paired "
        "bootstrap.",
        f"Differences in SRCC of {len(found)} runs from the first.",
        {
            "data": data,
            "layout": {
                "xaxis": {"title": {"text": "difference in SRCC"}},
                "yaxis": {
                    "tickvals": rows,
                    "ticktext": [safe(name) for name in names],
                    "showgrid": False,
                    "range": [-0.6, len(rows) - 0.4],
                },
                "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
                "shapes": [line(up=0)],
                "height": rows_height(2 * len(rows) + 1),
            },
        },
    )


def _bars(
    found: Sequence[Any], rows: list[float], low: str, high: str, what: str, place: int
) -> Json:
    figures = [each["figures"]["srcc"] for each in found]
    middles = [each["mean"] for each in figures]

    def to(end: str) -> list[float | None]:
        gaps = [abs(each[end] - middle) for each, middle in zip(figures, middles, strict=True)]
        return rounded(gaps, 5)  # null where there is no interval: no bar

    return {
        "type": "scatter",
        "mode": "markers",
        "name": what,
        "x": rounded(middles, 5),
        "y": rows,
        "error_x": {"type": "data", "array": to(high), "arrayminus": to(low), "thickness": 1.6,
                    "width": 5, "color": SERIES[place]},
        "marker": {"size": 9, "color": SERIES[place], "symbol": SYMBOLS[place]},
        "hovertemplate": f"%{{x:+.4f}} {what}<extra></extra>",
    }  # fmt: skip


def splits_figure(runs: Sequence[Results]) -> Figure:
    """SRCC of every split for every run, joined so that pairs are seen."""
    data: list[Json] = []
    for place, run in enumerate(runs):
        rows = run.metrics["per_split"][MODEL]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": safe(shortened(run.name, 40)),
                "x": [str(row["seed"]) for row in rows],
                "y": rounded([row["srcc"] for row in rows]),
                "line": {
                    "color": SERIES[place % len(SERIES)], "width": 1.6,
                    "dash": DASHES[place % len(DASHES)],
                },
                "marker": {"size": 8, "symbol": SYMBOLS[place % len(SYMBOLS)]},
                "hovertemplate": "split %{x}: %{y:.4f}<extra></extra>",
            }
        )  # fmt: skip
    return Figure(
        "Split by split",
        "SRCC on the test side of the same splits.",
        f"Lines of the SRCC of every split for {len(runs)} runs.",
        {
            "data": data,
            "layout": {
                "xaxis": {"title": {"text": "split"}, "type": "category"},
                "yaxis": {"title": {"text": "SRCC"}},
                "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
                "height": 360,
            },
        },
    )
