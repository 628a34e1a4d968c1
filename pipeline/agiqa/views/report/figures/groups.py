"""Images in groups: score − MOS by generator, prompt and MOS, and the gate's weights likewise.

Of the gate there is a pair of figures for each expert, all on one axis from 0 to 1: a gate that
hardly moves looks so. A linear gate's weights may lie outside, and the axis then holds them, too.
"""

import pandas as pd

from agiqa.views.report.figures import style
from agiqa.views.report.figures.style import PlotlyFigure, rounded, safe

BOXES = "Boxes hold half of the images, whiskers 80 %; the diamond is the mean."


def by_generator(table: pd.DataFrame, truth: str) -> PlotlyFigure:
    """Draw how far off each generator is scored (`summaries.residuals_by_generator`)."""
    names = [str(name) for name in table["generator"]]
    labels = style.row_labels(names)
    return PlotlyFigure(
        "Residuals by generator",
        f"Score minus {truth}. {BOXES} A click shows the generator's images.",
        f"Box plots of score minus {truth} for {len(table)} generators.",
        [
            *style.boxes(table, labels, style.SERIES[0], True),
            style.means(table, labels, names, True),
        ],
        {
            "xaxis": {"title": {"text": f"score − {truth}"}},
            "yaxis": {"type": "category", "showgrid": False},
            "shapes": [style.line(up=0)],
            "height": style.rows_height(len(table)),
        },
        filters="generator",
    )


def by_range(table: pd.DataFrame, truth: str) -> PlotlyFigure:
    """Draw `summaries.residuals_by_range`, along the MOS."""
    middles = rounded((table["low"] + table["high"]) / 2)
    ends = table[["low", "high"]]
    spoken = [f"{truth} {low:.2f} to {high:.2f}" for low, high in ends.to_numpy()]
    width = 0.7 * float((table["high"] - table["low"]).max()) if len(table) else 1.0
    return PlotlyFigure(
        f"Residuals by {truth}",
        f"Score minus {truth} in equal ranges of the {truth}. {BOXES} A fall from left to right is "
        "the pull to the middle that any regression on noisy scores has.",
        f"Box plots of score minus {truth} in {len(table)} ranges of the {truth}.",
        [
            *style.boxes(table, middles, style.SERIES[1], False, width),
            style.means(table, middles, ends.round(3).to_numpy().tolist(), False, spoken),
        ],
        {
            "xaxis": {"title": {"text": truth}, "showgrid": False},
            "yaxis": {"title": {"text": f"score − {truth}"}},
            "shapes": [style.line(across=0)],
            "height": 360,
        },
        filters="range",
    )


def by_prompt(table: pd.DataFrame, truth: str, share: float) -> PlotlyFigure | None:
    """Draw `summaries.residuals_by_prompt`; None where prompts are unknown or all too small.

    `share` is that of `summaries.prompt_share`.
    """
    if table.empty:
        return None
    groups = [str(name) for name in table["group"]]
    # Two long prompts may be alike once they are cut: rows are placed by number, named by ticks.
    rows = list(range(len(groups)))
    between = "" if pd.isna(share) else (
        f" Of all residuals' variance, {100 * share:.0f} % lies between prompts, the rest within."
    )  # fmt: skip
    return PlotlyFigure(
        "Residuals by prompt",
        f"The prompts whose images score furthest from their {truth} on average, and the deviation "
        f"within each.{between} A click shows the prompt's images.",
        f"Dot plot of the mean of score minus {truth} for {len(table)} prompts.",
        [
            style.MARKERS
            | {
                "x": rounded(table["mean"]),
                "y": rows,
                "customdata": groups,
                "hovertemplate": [
                    f"{safe(style.shortened(group, 90))}<br>mean {mean:+.3f}, sd {sd:.2f}, "
                    f"{count} images<extra></extra>"
                    for group, mean, sd, count in zip(
                        groups, table["mean"], table["sd"], table["images"], strict=True
                    )
                ],
                "error_x": {
                    "type": "data", "array": rounded(table["sd"].fillna(0)),
                    "color": style.FAINT, "thickness": 1.2, "width": 0,
                },
                "marker": {"color": style.SERIES[2], "size": 9, "symbol": "square"},
                "showlegend": False,
            }
        ],
        {
            "xaxis": {"title": {"text": f"mean of score − {truth}"}},
            "yaxis": style.named_rows([safe(style.shortened(g, 34)) for g in groups], rows),
            "shapes": [style.line(up=0)],
            "height": style.rows_height(len(rows)),
        },
        filters="text",
    )  # fmt: skip


def gate_figures(
    generators: pd.DataFrame, along_mos: pd.DataFrame, truth: str
) -> list[tuple[PlotlyFigure, PlotlyFigure]]:
    """For each expert its weight by generator, and along the MOS, as `summaries` has them."""
    ends = pd.concat([table[["p10", "p90"]] for table in (generators, along_mos)])
    axis = [min(0.0, float(ends["p10"].min())), max(1.0, float(ends["p90"].max()))]
    pairs = []
    for index, (expert, rows) in enumerate(generators.groupby("expert", sort=False)):
        name, colour = str(expert).replace("_", " "), style.SERIES[index % len(style.SERIES)]
        along = _gate_along(along_mos[along_mos["expert"] == expert], name, truth, colour, axis)
        pairs.append((_gate_by_generator(rows.reset_index(drop=True), name, colour, axis), along))
    return pairs


def _gate_by_generator(
    table: pd.DataFrame, expert: str, colour: str, axis: list[float]
) -> PlotlyFigure:
    names = [str(name) for name in table["generator"]]
    labels = style.row_labels(names, 22)
    dots = style.means(table, labels, names, True)
    dots["hovertemplate"] = [text.replace(":+", ":") for text in dots["hovertemplate"]]
    return PlotlyFigure(
        expert,
        "",
        f"Box plots of the gate's weight for {expert} for {len(table)} generators.",
        [*style.boxes(table, labels, colour, True), dots],
        {
            "xaxis": {"title": {"text": "gate weight"}, "nticks": 6, "range": axis},
            "yaxis": {"type": "category", "showgrid": False},
            "height": style.rows_height(len(table)),
        },
        filters="generator",
    )


def _gate_along(
    table: pd.DataFrame, expert: str, truth: str, colour: str, axis: list[float]
) -> PlotlyFigure:
    mos = rounded(table["mos"])
    return PlotlyFigure(
        f"{expert} against {truth}",
        "",
        f"Line of the gate's median weight for {expert} against {truth}.",
        [
            style.band(mos, table, colour),
            style.DOTTED_LINES
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
