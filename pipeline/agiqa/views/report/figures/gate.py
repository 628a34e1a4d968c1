"""Which expert is heard: the gate's weights by generator and against MOS.

One pair of figures for each expert, all on one axis from 0 to 1: a gate that hardly moves looks so.
A linear gate's weights may lie outside, and the axis then holds them, too.
"""

import pandas as pd

from agiqa.views.report.figures.style import (
    DOTTED_LINES,
    SERIES,
    PlotlyFigure,
    band,
    boxes,
    means,
    rounded,
    row_labels,
    rows_height,
    safe,
)


def gate_figures(
    by_generator: pd.DataFrame, by_mos: pd.DataFrame, truth: str
) -> list[tuple[PlotlyFigure, PlotlyFigure]]:
    """For each expert its weight by generator, and along the MOS, as `summaries` has them."""
    ends = pd.concat([table[["p10", "p90"]] for table in (by_generator, by_mos)])
    axis = [min(0.0, float(ends["p10"].min())), max(1.0, float(ends["p90"].max()))]
    pairs = []
    for index, (expert, rows) in enumerate(by_generator.groupby("expert", sort=False)):
        name, colour = str(expert).replace("_", " "), SERIES[index % len(SERIES)]
        along = _along(by_mos[by_mos["expert"] == expert], name, truth, colour, axis)
        pairs.append((_generators(rows.reset_index(drop=True), name, colour, axis), along))
    return pairs


def _generators(table: pd.DataFrame, expert: str, colour: str, axis: list[float]) -> PlotlyFigure:
    names = [str(name) for name in table["generator"]]
    labels = row_labels(names, 22)
    dots = means(table, labels, names, True)
    dots["hovertemplate"] = [text.replace(":+", ":") for text in dots["hovertemplate"]]
    return PlotlyFigure(
        expert,
        "",
        f"Box plots of the gate's weight for {expert} for {len(table)} generators.",
        [*boxes(table, labels, colour, True), dots],
        {
            "xaxis": {"title": {"text": "gate weight"}, "nticks": 6, "range": axis},
            "yaxis": {"type": "category", "showgrid": False},
            "height": rows_height(len(table)),
        },
        filters="generator",
    )


def _along(
    table: pd.DataFrame, expert: str, truth: str, colour: str, axis: list[float]
) -> PlotlyFigure:
    mos = rounded(table["mos"])
    return PlotlyFigure(
        f"{expert} against {truth}",
        "",
        f"Line of the gate's median weight for {expert} against {truth}.",
        [
            band(mos, table, colour),
            DOTTED_LINES
            | {
                "name": "median",
                "x": mos,
                "y": rounded(table["median"]),
                "line": {"color": colour, "width": 2},
                "marker": {"size": 6, "color": colour},
                "hovertemplate": f"{safe(truth)} %{{x:.2f}}: %{{y:.3f}}<extra></extra>",
            },
        ],
        {
            "xaxis": {"title": {"text": truth}},
            "yaxis": {"title": {"text": "gate weight"}, "nticks": 6, "range": axis},
            "showlegend": False,
            "height": 250,
        },
    )
