"""Which expert is heard: the gate's weights by generator and against MOS.

One pair of figures for each expert, each with a scale of its own: where one expert has nearly all
the weight, the others' shares would vanish on a common one.
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
    """For each expert its weight by generator, and along the MOS.

    Args:
        by_generator: of `summaries.gate_by_generator`.
        by_mos: of `summaries.gate_by_mos`.
        truth: MOS, in the page's words.
    """
    pairs = []
    for place, (expert, part) in enumerate(by_generator.groupby("expert", sort=False)):
        name, colour = str(expert).replace("_", " "), SERIES[place % len(SERIES)]
        along = _along(by_mos[by_mos["expert"] == expert], name, truth, colour)
        pairs.append((_generators(part.reset_index(drop=True), name, colour), along))
    return pairs


def _generators(table: pd.DataFrame, expert: str, colour: str) -> PlotlyFigure:
    names = [str(name) for name in table["generator"]]
    labels = row_labels(names, 22)
    dots = means(table, labels, names, True)
    dots["hovertemplate"] = [text.replace(":+", ":") for text in dots["hovertemplate"]]
    return PlotlyFigure(
        expert,
        "",
        f"Box plots of the gate's weight for {expert} for {len(table)} generators.",
        {
            "data": [*boxes(table, labels, colour, True), dots],
            "layout": {
                "xaxis": {"title": {"text": "gate weight"}, "nticks": 6},
                "yaxis": {"type": "category", "showgrid": False},
                "height": rows_height(len(table)),
            },
        },
        filters="generator",
    )


def _along(table: pd.DataFrame, expert: str, truth: str, colour: str) -> PlotlyFigure:
    mos = rounded(table["mos"])
    return PlotlyFigure(
        f"{expert} against {truth}",
        "",
        f"Line of the gate's median weight for {expert} against {truth}.",
        {
            "data": [
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
            "layout": {
                "xaxis": {"title": {"text": truth}},
                "yaxis": {"title": {"text": "gate weight"}, "nticks": 6},
                "showlegend": False,
                "height": 250,
            },
        },
    )
