"""What the figures share: the palette's names, heights of rows, box plots out of quantiles."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

INK, FAINT, RULE = "--ink", "--muted", "--rule"
# Okabe and Ito's palette, shifted for contrast on each ground in report.css.
SERIES = tuple(f"--series-{place}" for place in range(1, 9))
SYMBOLS = (
    "circle", "diamond", "square", "triangle-up", "cross", "x", "triangle-down", "pentagon",
    "star-diamond", "hourglass",
)  # fmt: skip
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
ROW, FRAME = 26, 84  # pixels: of a row in a figure with names, and of what stands around the rows

Json = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """One figure of the page."""

    title: str
    caption: str
    spoken: str  # what a screen reader says in its place
    plot: Json  # data and layout, as Plotly has them
    filters: str = ""  # what a click on a row asks of the gallery: generator, text or range


def rows_height(rows: int) -> int:
    """Pixels of a figure that has a named row for each thing."""
    return FRAME + ROW * max(3, rows)


def shortened(text: str, most: int = 30) -> str:
    """A name that fits beside a figure."""
    return text if len(text) <= most else text[: most - 1] + "…"


def row_labels(names: Sequence[str], most: int = 30) -> list[str]:
    """Names of a figure's rows: cut, safe, and still different where their beginnings are alike."""
    labels: list[str] = []
    for name in names:
        label, again = shortened(name, most), 1
        while safe(label) in labels:
            again += 1
            label = f"{shortened(name, most - 4)} ({again})"
        labels.append(safe(label))
    return labels


def rounded(values: Any, digits: int = 4) -> list[float | None]:
    """Numbers for JSON: rounded, None where not defined."""
    column = pd.Series(values, dtype=float)
    return [None if pd.isna(value) else round(float(value), digits) for value in column]


def box(table: pd.DataFrame, names: Sequence[Any], colour: str, across: bool) -> Json:
    """Boxes from 25 to 75 %, whiskers from 10 to 90 %, a dot at the mean.

    Args:
        table: images, mean, p10, q1, median, q3, p90 of each row.
        names: of the rows, or their places on the axis.
        colour: of the boxes.
        across: rows lie one above another, values go across.
    """
    quantiles = {"q1": "q1", "median": "median", "q3": "q3", "lowerfence": "p10",
                 "upperfence": "p90", "mean": "mean"}  # fmt: skip
    return {
        "type": "box",
        "orientation": "h" if across else "v",
        "y" if across else "x": names,
        **{theirs: rounded(table[ours]) for theirs, ours in quantiles.items()},
        "boxmean": False,
        "line": {"color": colour, "width": 1.6},
        "fillcolor": colour + "-soft",
        "whiskerwidth": 0.5,
        "showlegend": False,
        "hoverinfo": "skip",
    }


def means(
    table: pd.DataFrame,
    names: Sequence[Any],
    asked: list[Any],
    across: bool,
    said: Sequence[str] | None = None,
) -> Json:
    """The dots at the means, which carry the hover text and what a click asks of the gallery.

    `said` are the rows' names in the hover text, where `names` are places.
    """
    values = rounded(table["mean"])
    words = [
        f"{name}<br>mean %{{{'x' if across else 'y'}:+.3f}}, 80 % from {low:+.2f} to {high:+.2f}"
        f"<br>{count:,} images"
        for name, low, high, count in zip(
            said or names, table["p10"], table["p90"], table["images"], strict=True
        )
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": values if across else names,
        "y": names if across else values,
        "customdata": asked,
        "hovertemplate": [text + "<extra></extra>" for text in words],
        "marker": {"color": INK, "size": 7, "symbol": "diamond"},
        "showlegend": False,
    }


def line(across: float | None = None, up: float | None = None) -> Json:
    """A faint dashed line through the whole plot, at a height or at a place across."""
    where = (
        {"xref": "paper", "x0": 0, "x1": 1, "y0": across, "y1": across}
        if across is not None
        else {"yref": "paper", "y0": 0, "y1": 1, "x0": up, "x1": up}
    )
    return {"type": "line", **where, "layer": "below",
            "line": {"color": FAINT, "width": 1, "dash": "dash"}}  # fmt: skip


def safe(text: str) -> str:
    """Text from data within Plotly's own markup: no tag of it, no field of a template."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("%{", "%\u200b{")
