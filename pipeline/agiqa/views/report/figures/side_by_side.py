"""Several runs on the same splits: differences from the first, and every split of each."""

from collections.abc import Mapping, Sequence
from typing import Any

from agiqa.views.report.figures.style import (
    DASHES,
    DOTTED_LINES,
    LEGEND,
    MARKERS,
    SERIES,
    SYMBOLS,
    Json,
    PlotlyFigure,
    line,
    named_rows,
    rounded,
    rows_height,
    safe,
    shortened,
)
from agiqa.views.report.results import MODEL, Results


def difference_figure(comparison: Mapping[str, Any]) -> PlotlyFigure:
    """SRCC of each run minus the first run's, with both 95 % intervals of `runs.compare`."""
    comparisons = comparison["comparisons"]
    rows = [float(row) for row in range(len(comparisons))][::-1]
    names = [safe(shortened(pair["name"], 40)) for pair in comparisons]
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
            "yaxis": named_rows(names, rows),
            "legend": LEGEND,
            "shapes": [line(up=0)],
            "height": rows_height(2 * len(rows) + 1),
        },
    )


def _bars(
    figures: Sequence[Mapping[str, Any]], rows: list[float], interval: str, over: str, series: int
) -> Json:
    """The differences with one kind of interval; no bar where there is none."""

    def to(end: str) -> list[float | None]:
        return rounded([abs(figure[interval + end] - figure["mean"]) for figure in figures], 5)

    return MARKERS | {
        "name": over,
        "x": rounded([figure["mean"] for figure in figures], 5),
        "y": rows,
        "error_x": {"type": "data", "array": to("high"), "arrayminus": to("low"), "thickness": 1.6,
                    "width": 5, "color": SERIES[series]},
        "marker": {"size": 9, "color": SERIES[series], "symbol": SYMBOLS[series]},
        "hovertemplate": f"%{{x:+.4f}} {over}<extra></extra>",
    }  # fmt: skip


def splits_figure(runs: Sequence[Results]) -> PlotlyFigure:
    """SRCC of every split for every run, joined so that pairs are seen."""
    data: list[Json] = []
    for index, run in enumerate(runs):
        rows = run.metrics["per_split"][MODEL]
        data.append(
            DOTTED_LINES
            | {
                "name": safe(shortened(run.name, 40)),
                "x": [str(row["seed"]) for row in rows],
                "y": rounded([row["srcc"] for row in rows]),
                "line": {
                    "color": SERIES[index % len(SERIES)], "width": 1.6,
                    "dash": DASHES[index % len(DASHES)],
                },
                "marker": {"size": 8, "symbol": SYMBOLS[index % len(SYMBOLS)]},
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
            "legend": LEGEND,
            "height": 360,
        },
    )
