"""What the figures share: the palette's names, heights of rows, box plots of quantiles."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

INK, FAINT = "--ink", "--muted"
# Okabe and Ito's palette, shifted for contrast on each ground in report.css.
SERIES = tuple(f"--series-{number}" for number in range(1, 9))
SYMBOLS = (
    "circle", "diamond", "square", "triangle-up", "cross", "x", "triangle-down", "pentagon",
    "star-diamond", "hourglass",
)  # fmt: skip
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
ROW, FRAME = 26, 84  # pixels: of a row in a figure with names, and of what stands around the rows

LEGEND = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}

Json = dict[str, Any]
MARKERS: Json = {"type": "scatter", "mode": "markers"}
LINES: Json = {"type": "scatter", "mode": "lines"}
DOTTED_LINES: Json = {"type": "scatter", "mode": "lines+markers"}


@dataclass(frozen=True)
class PlotlyFigure:
    """One figure of the page."""

    title: str
    caption: str
    spoken: str  # what a screen reader says in its place
    data: list[Json]  # as Plotly has them
    layout: Json
    filters: str = ""  # what a click on a row asks of the gallery: generator, text or range


def rows_height(rows: int) -> int:
    """Pixels of a figure that has a named row for each thing."""
    return FRAME + ROW * max(3, rows)


def named_rows(names: Sequence[str], rows: Sequence[float]) -> Json:
    """An axis of rows that are placed by number and named by its ticks."""
    return {
        "tickvals": list(rows),
        "ticktext": list(names),
        "showgrid": False,
        "range": [-0.6, len(rows) - 0.4],
    }


def exact_line(low: float, high: float) -> Json:
    """The dashed line on which score and MOS agree."""
    ends = rounded([low, high])
    return LINES | {"name": "exact", "x": ends, "y": ends, "hoverinfo": "skip",
                    "line": {"color": FAINT, "width": 1.2, "dash": "dash"}}  # fmt: skip


def band(across: list[float | None], table: pd.DataFrame, colour: str) -> Json:
    """The area between the 10 % and the 90 % quantile."""
    return LINES | {
        "name": "middle 80 %",
        "x": across + across[::-1],
        "y": rounded(table["p90"]) + rounded(table["p10"])[::-1],
        "fill": "toself",
        "fillcolor": colour + "-soft",
        "line": {"width": 0, "color": colour},
        "hoverinfo": "skip",
    }


def shortened(text: str, most: int = 30) -> str:
    """A name that fits beside a figure."""
    return text if len(text) <= most else text[: most - 1] + "…"


def row_labels(names: Sequence[str], most: int = 30) -> list[str]:
    """Cut and escape names of a figure's rows; those that begin alike stay different."""
    labels: list[str] = []
    for name in names:
        label, again = shortened(name, most), 1
        while safe(label) in labels:
            again += 1
            label = f"{shortened(name, most - 4)} ({again})"
        labels.append(safe(label))
    return labels


def rounded(values: Any, digits: int = 4) -> list[float | None]:
    """Round numbers for JSON; None where not defined."""
    column = pd.Series(values, dtype=float)
    return [None if pd.isna(value) else round(float(value), digits) for value in column]


def boxes(
    table: pd.DataFrame, names: Sequence[Any], colour: str, across: bool, width: float = 0.55
) -> list[Json]:
    """Boxes from 25 to 75 %, parted at the median, and whiskers from 10 to 90 %.

    Bars and error bars, not Plotly's box traces: the quantiles are known (`p10` to `p90` of each
    row), and the page carries Plotly's basic bundle, which has none. Rows lie `across` one above
    another; a box's width is in units of their axis.
    """
    value, position, error = ("x", "y", "error_x") if across else ("y", "x", "error_y")
    low, high = [*table["q1"], *table["median"]], [*table["median"], *table["q3"]]
    ends, nothing = [*table["q1"], *table["q3"]], [0.0] * len(table)
    shared = {position: [*names, *names], "showlegend": False, "hoverinfo": "skip"}
    return [
        MARKERS
        | {
            value: rounded(ends),
            error: {
                "type": "data",
                "array": [*nothing, *rounded(table["p90"] - table["q3"])],
                "arrayminus": [*rounded(table["q1"] - table["p10"]), *nothing],
                "color": colour,
                "thickness": 1.6,
                "width": 5,
            },
            "marker": {"opacity": 0, "size": 1},
            **shared,
        },
        {
            "type": "bar",
            "orientation": "h" if across else "v",
            "base": rounded(low),
            value: rounded([top - bottom for bottom, top in zip(low, high, strict=True)]),
            "width": width,
            "marker": {"color": colour + "-soft", "line": {"color": colour, "width": 1.6}},
            **shared,
        },
    ]


def means(
    table: pd.DataFrame,
    names: Sequence[Any],
    filters: list[Any],
    across: bool,
    spoken: Sequence[str] | None = None,
) -> Json:
    """The dots at the means, which carry the hover text and what a click asks of the gallery.

    `spoken` are the rows' names in the hover text, where `names` are places.
    """
    values = rounded(table["mean"])
    words = [
        f"{name}<br>mean %{{{'x' if across else 'y'}:+.3f}}, 80 % from {low:+.2f} to {high:+.2f}"
        f"<br>{count:,} images"
        for name, low, high, count in zip(
            spoken or names, table["p10"], table["p90"], table["images"], strict=True
        )
    ]
    return MARKERS | {
        "x": values if across else names,
        "y": names if across else values,
        "customdata": filters,
        "hovertemplate": [text + "<extra></extra>" for text in words],
        "marker": {"color": INK, "size": 7, "symbol": "diamond"},
        "showlegend": False,
    }


def line(across: float | None = None, up: float | None = None) -> Json:
    """A faint dashed line through the whole plot, at a height or at a place across."""
    ends = (
        {"xref": "paper", "x0": 0, "x1": 1, "y0": across, "y1": across}
        if across is not None
        else {"yref": "paper", "y0": 0, "y1": 1, "x0": up, "x1": up}
    )
    return {"type": "line", **ends, "layer": "below",
            "line": {"color": FAINT, "width": 1, "dash": "dash"}}  # fmt: skip


def safe(text: str) -> str:
    """Text from data within Plotly's own markup: no tag of it, no field of a template."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("%{", "%\u200b{")
