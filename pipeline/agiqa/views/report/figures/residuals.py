"""Where the model errs: score − MOS by generator, by prompt and along the MOS."""

import pandas as pd

from agiqa.views.report.figures.style import (
    FAINT,
    MARKERS,
    SERIES,
    PlotlyFigure,
    boxes,
    line,
    means,
    named_rows,
    rounded,
    row_labels,
    rows_height,
    safe,
    shortened,
)

BOXES = "Boxes hold half of the images, whiskers 80 %; the diamond is the mean."


def by_generator(table: pd.DataFrame, truth: str) -> PlotlyFigure:
    """Draw how far off each generator is scored (`summaries.residuals_by_generator`)."""
    names = [str(name) for name in table["generator"]]
    labels = row_labels(names)
    return PlotlyFigure(
        "Residuals by generator",
        f"Score minus {truth}. {BOXES} A click shows the generator's images.",
        f"Box plots of score minus {truth} for {len(table)} generators.",
        [*boxes(table, labels, SERIES[0], True), means(table, labels, names, True)],
        {
            "xaxis": {"title": {"text": f"score − {truth}"}},
            "yaxis": {"type": "category", "showgrid": False},
            "shapes": [line(up=0)],
            "height": rows_height(len(table)),
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
            *boxes(table, middles, SERIES[1], False, width),
            means(table, middles, ends.round(3).to_numpy().tolist(), False, spoken),
        ],
        {
            "xaxis": {"title": {"text": truth}, "showgrid": False},
            "yaxis": {"title": {"text": f"score − {truth}"}},
            "shapes": [line(across=0)],
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
            MARKERS
            | {
                "x": rounded(table["mean"]),
                "y": rows,
                "customdata": groups,
                "hovertemplate": _prompt_words(table),
                "error_x": {
                    "type": "data", "array": rounded(table["sd"].fillna(0)),
                    "color": FAINT, "thickness": 1.2, "width": 0,
                },
                "marker": {"color": SERIES[2], "size": 9, "symbol": "square"},
                "showlegend": False,
            }
        ],
        {
            "xaxis": {"title": {"text": f"mean of score − {truth}"}},
            "yaxis": named_rows([safe(shortened(group, 34)) for group in groups], rows),
            "shapes": [line(up=0)],
            "height": rows_height(len(rows)),
        },
        filters="text",
    )  # fmt: skip


def _prompt_words(table: pd.DataFrame) -> list[str]:
    columns = (table[name] for name in ("group", "mean", "sd", "images"))
    return [
        f"{safe(shortened(str(name), 90))}<br>mean {mean:+.3f}, sd {sd:.2f}, {count} images"
        "<extra></extra>"
        for name, mean, sd, count in zip(*columns, strict=True)
    ]
