"""The report's figures as Plotly's JSON: plain dicts of `data` and `layout`.

Predicted score against MOS, every image and in bins; score − MOS by generator, prompt and MOS, and
the gate's weights likewise; splits one by one, and how every network learned; several runs on the
same splits by their differences from the first. In all of them `truth` is the MOS in the page's
words.

Colours are names of the page's CSS variables (`--series-1`), which `plots.js` resolves, so that one
figure serves the light and the dark page; it also adds fonts and grid. Points of images are not
written out again: a trace with `meta.generators` gets them from the page's image columns. Series
differ in marker as well as in colour. Nothing here imports plotly: tests hold the dicts to it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from agiqa.core.model_names import MODELS, in_order
from agiqa.data.metric_names import LEAST_FOR_FITTED
from agiqa.data.metrics import fit_logistic
from agiqa.views.report.results import MODEL

INK, FAINT = "--ink", "--muted"
# Okabe and Ito's palette, shifted for contrast on each ground in report.css.
SERIES = tuple(f"--series-{number}" for number in range(1, 9))
SYMBOLS = (
    "circle", "diamond", "square", "triangle-up", "cross", "x", "triangle-down", "pentagon",
    "star-diamond", "hourglass",
)  # fmt: skip
ROW, FRAME = 26, 84  # pixels: of a row in a figure with names, and of what stands around the rows
LINE_POINTS = 120  # of the fitted logistic
MOST_SERIES = 10  # generators that get a colour and a marker; the rest share one
BOXES = "Boxes hold half of the images, whiskers 80 %; the diamond is the mean."

Json = dict[str, Any]
LEGEND: Json = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
NAMES: Json = {"type": "category", "showgrid": False}  # an axis of names


@dataclass(frozen=True)
class PlotlyFigure:
    """One figure of the page."""

    title: str
    caption: str
    spoken: str  # what a screen reader says in its place
    data: list[Json]  # as Plotly has them
    layout: Json
    filters: str = ""  # what a click on a row asks of the gallery: generator, text or range


def scatter_figure(images: pd.DataFrame, truth: str) -> PlotlyFigure:
    """One point an image of `average_images`; the points come from the page's columns."""
    low, high = 0.0, 1.0
    if len(images):
        values = images[["score", "mos"]].to_numpy()
        room = 0.04 * float(values.max() - values.min()) or 0.5
        low, high = round(float(values.min()) - room, 3), round(float(values.max()) + room, 3)
    scale = {"range": [low, high], "showgrid": False}
    data = [*_points(images), _exact_line(low, high)]
    if len(images) >= LEAST_FOR_FITTED:
        line = {"color": INK, "width": 2}
        data.append(
            _trace("lines", *_logistic(images), name="fitted logistic", line=line, hoverinfo="skip")
        )
    return PlotlyFigure(
        f"Predicted score against {truth}",
        f"One point for each of {len(images):,} images: the mixture of experts' score, averaged "
        "over the splits in which the image was tested. A click on a generator's name hides it, "
        "twice leaves it alone. Point at an image, or "
        "press the arrow keys on the plot.",
        f"Scatter plot of {len(images):,} images: predicted score across, {truth} upwards.",
        data,
        {
            "xaxis": _axis("predicted score") | scale,
            "yaxis": _axis(truth) | scale,
            "legend": LEGEND,
            "hovermode": "closest",
            "height": 560,
        },
    )


def _points(images: pd.DataFrame) -> list[Json]:
    """A series for each generator, the rarest beneath the others as one."""
    named = [str(name) for name in images["generator"].value_counts().index]
    series = [
        (name or "all images", [name], _cycled(SERIES, index), _cycled(SYMBOLS, index))
        for index, name in enumerate(named[:MOST_SERIES])
    ]
    if other_names := named[MOST_SERIES:]:
        series.insert(0, (f"{len(other_names)} others", other_names, FAINT, "circle"))
    size, opacity = (4, 0.45) if len(images) > 4000 else (6, 0.6)
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": safe(label),
            "meta": {"generators": generators},
            "hoverinfo": "none",
            "marker": {"size": size, "opacity": opacity, "color": colour, "symbol": symbol},
        }
        for label, generators, colour, symbol in series
    ]


def _logistic(images: pd.DataFrame) -> tuple[Any, Any]:
    """The curve that was fitted to all images, at places spread over the scores."""
    ordered = images.sort_values("score")
    fitted = fit_logistic(images["mos"].to_numpy(), images["score"].to_numpy())
    curve = pd.Series(fitted, index=images.index)[ordered.index].to_numpy()
    rows = np.unique(np.linspace(0, len(ordered) - 1, LINE_POINTS).round().astype(int))
    return rounded(ordered["score"].to_numpy()[rows]), rounded(curve[rows])


def calibration_figure(table: pd.DataFrame, truth: str) -> PlotlyFigure:
    """Mean MOS of images of about the same score and their middle 80 %, `summaries.calibration`."""
    score = rounded(table["score"])
    words = [
        f"score {row.score:.2f}: {safe(truth)} {row.mos:.2f} on average<br>80 % from "
        f"{row.p10:.2f} to {row.p90:.2f}, {row.images:,} images<extra></extra>"
        for row in table.itertuples()
    ]
    low, high = 0.0, 1.0
    if len(table):
        low = float(table[["score", "p10"]].to_numpy().min())
        high = float(table[["score", "p90"]].to_numpy().max())
    curve = _dotted(score, rounded(table["mos"]), SERIES[0], 8, name=f"mean {truth}")
    return PlotlyFigure(
        "Calibration",
        f"Images in {len(table)} bins by their score, as many in each: the mean {truth}, and the "
        f"middle 80 % of it. Below the dashed line the model is too kind.",
        f"Line of the mean {truth} against the mean score in {len(table)} bins.",
        [_band(score, table, SERIES[0]), _exact_line(low, high), curve | {"hovertemplate": words}],
        {
            "xaxis": _axis("mean predicted score of a bin"),
            "yaxis": _axis(truth),
            "legend": LEGEND,
            "height": 400,
        },
    )


def by_generator(table: pd.DataFrame, truth: str) -> PlotlyFigure:
    """Draw how far off each generator is scored (`summaries.residuals_by_generator`)."""
    axis = _axis(f"score − {truth}")
    return PlotlyFigure(
        "Residuals by generator",
        f"Score minus {truth}. {BOXES} A click shows the generator's images.",
        f"Box plots of score minus {truth} for {len(table)} generators.",
        _generator_boxes(table, SERIES[0], 30, "+.3f"),
        {
            "xaxis": axis, "yaxis": NAMES, "shapes": [_zero_line("x")],
            "height": rows_height(len(table)),
        },
        filters="generator",
    )  # fmt: skip


def by_range(table: pd.DataFrame, truth: str) -> PlotlyFigure:
    """Draw `summaries.residuals_by_range`, along the MOS."""
    middles = rounded((table["low"] + table["high"]) / 2)
    ends = table[["low", "high"]]
    spoken = [f"{truth} {low:.2f} to {high:.2f}" for low, high in ends.to_numpy()]
    width = 0.7 * float((table["high"] - table["low"]).max()) if len(table) else 1.0
    means = rounded(table["mean"])
    return PlotlyFigure(
        f"Residuals by {truth}",
        f"Score minus {truth} in equal ranges of the {truth}. {BOXES} A fall from left to right is "
        "the pull to the middle that any regression on noisy scores has.",
        f"Box plots of score minus {truth} in {len(table)} ranges of the {truth}.",
        [
            *_boxes(table, middles, SERIES[1], False, width),
            _dots(middles, means, INK, 7, "diamond")
            | {
                "customdata": ends.round(3).to_numpy().tolist(),
                "hovertemplate": _spreads_in_words(table, spoken, "y:+.3f"),
            },
        ],
        {
            "xaxis": _axis(truth) | {"showgrid": False},
            "yaxis": _axis(f"score − {truth}"),
            "shapes": [_zero_line("y")],
            "height": 360,
        },
        filters="range",
    )


def by_prompt(table: pd.DataFrame, truth: str) -> PlotlyFigure | None:
    """Draw `summaries.residuals_by_prompt`; None where prompts are unknown or all too small."""
    if table.empty:
        return None
    groups = [str(name) for name in table["group"]]
    # Two long prompts may be alike once they are cut: rows are placed by number, named by ticks.
    rows = list(range(len(groups)))
    dots = _dots(rounded(table["mean"]), rows, SERIES[2], 9, "square") | {
        "customdata": groups,
        "hovertemplate": [
            f"{safe(_shortened(str(row.group), 90))}<br>mean {row.mean:+.3f}, sd {row.sd:.2f}, "
            f"{row.images} images<extra></extra>"
            for row in table.itertuples()
        ],
        "error_x": {"type": "data", "array": rounded(table["sd"].fillna(0)), "color": FAINT,
                    "thickness": 1.2, "width": 0},
    }  # fmt: skip
    return PlotlyFigure(
        "Residuals by prompt",
        f"The prompts whose images score furthest from their {truth} on average, and the deviation "
        "within each. A click shows the prompt's images.",
        f"Dot plot of the mean of score minus {truth} for {len(table)} prompts.",
        [dots],
        {
            "xaxis": _axis(f"mean of score − {truth}"),
            "yaxis": _named_rows([safe(_shortened(group, 34)) for group in groups], rows),
            "shapes": [_zero_line("x")],
            "height": rows_height(len(rows)),
        },
        filters="text",
    )


def gate_figures(
    generators: pd.DataFrame, along_mos: pd.DataFrame, truth: str
) -> list[tuple[PlotlyFigure, PlotlyFigure]]:
    """For each expert its weight by generator, and along the MOS, as `summaries` has them.

    All on one axis from 0 to 1: a gate that hardly moves looks so. A linear gate's weights may lie
    outside, and the axis then holds them, too.
    """
    ends = pd.concat([table[["p10", "p90"]] for table in (generators, along_mos)])
    span = [min(0.0, float(ends["p10"].min())), max(1.0, float(ends["p90"].max()))]
    axis = _axis("gate weight") | {"nticks": 6, "range": span}
    pairs = []
    for index, (expert, rows) in enumerate(generators.groupby("expert", sort=False)):
        name, colour = str(expert).replace("_", " "), _cycled(SERIES, index)
        boxes = PlotlyFigure(
            name,
            "",
            f"Box plots of the gate's weight for {name} for {len(rows)} generators.",
            _generator_boxes(rows.reset_index(drop=True), colour, 22, ".3f"),
            {"xaxis": axis, "yaxis": NAMES, "height": rows_height(len(rows))},
            filters="generator",
        )
        bins = along_mos[along_mos["expert"] == expert]
        mos, hover = rounded(bins["mos"]), f"{safe(truth)} %{{x:.2f}}: %{{y:.3f}}<extra></extra>"
        medians = _dotted(mos, rounded(bins["median"]), colour, 6, name="median")
        along = PlotlyFigure(
            f"{name} against {truth}",
            "",
            f"Line of the gate's median weight for {name} against {truth}.",
            [_band(mos, bins, colour), medians | {"hovertemplate": hover}],
            {"xaxis": _axis(truth), "yaxis": axis, "showlegend": False, "height": 250},
        )
        pairs.append((boxes, along))
    return pairs


def split_strip(metrics: Mapping[str, Any]) -> PlotlyFigure:
    """Every split's SRCC for every model, the median and its 95 % interval marked."""
    models = in_order(metrics["per_split"])[::-1]
    data: list[Json] = []
    for row, name in enumerate(models):
        splits = [split for split in metrics["per_split"][name] if split["srcc"] is not None]
        marker = {"size": 9, "opacity": 0.4, "color": SERIES[0] if name == MODEL else FAINT}
        data.append(
            _trace("markers", rounded([split["srcc"] for split in splits]), [row] * len(splits),
                   customdata=[split["seed"] for split in splits], marker=marker, showlegend=False,
                   hovertemplate="split %{customdata}: %{x:.4f}<extra></extra>")
        )  # fmt: skip
        data += _median(metrics["models"].get(name, {}).get("srcc", {}), row)
    labels = ["<br>".join(filter(None, MODELS.get(name, (name, ""))[:2])) for name in models]
    return PlotlyFigure(
        "Every split",
        "SRCC on the test side: a dot for each split; diamond and bar are the median and its 95 % "
        "interval. All models were tested on the same splits.",
        "Dot plot of the SRCC of every split for every model.",
        data,
        {
            "xaxis": _axis("SRCC on the test side"),
            "yaxis": _named_rows(labels, range(len(models))),
            "height": rows_height(2 * len(models)),
        },
    )


def _median(figures: Mapping[str, Any], row: int) -> list[Json]:
    middle, low, high = (figures.get(key) for key in ("median", "low", "high"))
    if middle is None or not math.isfinite(middle):
        return []
    words, bar = "median %{x:.4f}", {}
    if low is not None and high is not None:
        words += f", 95 % from {low:.4f} to {high:.4f}"
        bar = {"type": "data", "array": rounded([high - middle]), "color": INK, "width": 5,
               "arrayminus": rounded([middle - low]), "thickness": 1.5}  # fmt: skip
    dot = _dots(rounded([middle]), [row], INK, 9, "diamond")
    return [dot | {"error_x": bar, "hovertemplate": words + "<extra></extra>"}]


def learning_curves(curves: pd.DataFrame) -> PlotlyFigure | None:
    """The mixture's SRCC on the validation side by epoch, a line a split, and the median.

    None where nothing was trained by epochs.
    """
    rows = curves[(curves["model"] == MODEL) & curves["val_srcc"].notna()]
    if rows.empty:
        return None
    line = {"color": SERIES[0], "width": 1.2}
    data = [
        _trace("lines", rounded(split["epoch"]), rounded(split["val_srcc"]), opacity=0.45,
               hovertemplate=f"split {seed}, epoch %{{x}}: %{{y:.4f}}<extra></extra>", line=line,
               showlegend=False)
        for seed, split in rows.groupby("seed", sort=False)
    ]  # fmt: skip
    by_epoch = rows.groupby("epoch")["val_srcc"]
    most = by_epoch.count() * 2 >= rows["seed"].nunique()  # of the rest the median says little
    middle = by_epoch.median()[most]
    median = _dotted(rounded(middle.index), rounded(middle), SERIES[0], 6, width=3)
    hover = "median, epoch %{x}: %{y:.4f}<extra></extra>"
    title = MODELS[MODEL][0]
    return PlotlyFigure(
        title,
        "",
        f"Learning curves of {len(data)} splits: {title}.",
        [*data, median | {"hovertemplate": hover, "showlegend": False}],
        {
            "xaxis": _axis("epoch") | {"nticks": 8},
            "yaxis": _axis("validation SRCC") | {"nticks": 6},
            "height": 280,
        },
    )


def difference_figure(comparison: Mapping[str, Any]) -> PlotlyFigure:
    """SRCC of each run minus the first run's, with both 95 % intervals of `runs.compare`."""
    comparisons = comparison["comparisons"]
    rows = [float(row) for row in range(len(comparisons))][::-1]
    names = [safe(_shortened(pair["name"], 40)) for pair in comparisons]
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
            "xaxis": _axis("difference in SRCC"),
            "yaxis": _named_rows(names, rows),
            "legend": LEGEND,
            "shapes": [_zero_line("x")],
            "height": rows_height(2 * len(rows) + 1),
        },
    )


def _bars(
    figures: Sequence[Mapping[str, Any]], rows: list[float], interval: str, over: str, series: int
) -> Json:
    """The differences with one kind of interval; no bar where there is none."""
    high, low = (
        rounded([abs(figure[interval + end] - figure["mean"]) for figure in figures], 5)
        for end in ("high", "low")
    )
    return _trace(
        "markers",
        rounded([figure["mean"] for figure in figures], 5),
        rows,
        name=over,
        error_x={"type": "data", "array": high, "arrayminus": low, "thickness": 1.6, "width": 5,
                 "color": SERIES[series]},
        marker={"size": 9, "color": SERIES[series], "symbol": SYMBOLS[series]},
        hovertemplate=f"%{{x:+.4f}} {over}<extra></extra>",
    )  # fmt: skip


def _trace(mode: str, x: Sequence[Any], y: Sequence[Any], **more: Any) -> Json:
    """Points, joined or not; `more` is Plotly's own."""
    return {"type": "scatter", "mode": mode, "x": x, "y": y, **more}


def _dots(x: Sequence[Any], y: Sequence[Any], colour: str, size: int, symbol: str) -> Json:
    """Points that no legend names."""
    marker = {"color": colour, "size": size, "symbol": symbol}
    return _trace("markers", x, y, marker=marker, showlegend=False)


def _dotted(
    x: Sequence[Any], y: Sequence[Any], colour: str, size: int, width: int = 2, **more: Any
) -> Json:
    """A line with a dot of `size` pixels at each point."""
    line, marker = {"color": colour, "width": width}, {"size": size, "color": colour}
    return _trace("lines+markers", x, y, line=line, marker=marker, **more)


def _exact_line(low: float, high: float) -> Json:
    """The dashed line on which score and MOS agree."""
    ends, line = rounded([low, high]), {"color": FAINT, "width": 1.2, "dash": "dash"}
    return _trace("lines", ends, ends, name="exact", hoverinfo="skip", line=line)


def _band(across: list[float | None], table: pd.DataFrame, colour: str) -> Json:
    """The area between the 10 % and the 90 % quantile."""
    return _trace(
        "lines",
        across + across[::-1],
        rounded(table["p90"]) + rounded(table["p10"])[::-1],
        name="middle 80 %",
        fill="toself",
        fillcolor=colour + "-soft",
        line={"width": 0, "color": colour},
        hoverinfo="skip",
    )


def _generator_boxes(table: pd.DataFrame, colour: str, most: int, form: str) -> list[Json]:
    """Boxes with a row a generator, whose mean carries what a click asks of the gallery.

    Names are cut to `most` letters; `form` is the mean's in the hover text.
    """
    names = [str(name) for name in table["generator"]]
    labels = row_labels(names, most)
    hover = _spreads_in_words(table, labels, f"x:{form}")
    dots = _dots(rounded(table["mean"]), labels, INK, 7, "diamond")
    dots |= {"customdata": names, "hovertemplate": hover}
    return [*_boxes(table, labels, colour, True), dots]


def _boxes(
    table: pd.DataFrame, names: Sequence[Any], colour: str, across: bool, width: float = 0.55
) -> list[Json]:
    """Boxes from 25 to 75 %, parted at the median, and whiskers from 10 to 90 %.

    Bars and error bars, not Plotly's box traces: the quantiles are known (`p10` to `p90` of each
    row), and the page carries Plotly's basic bundle, which has none. Rows lie `across` one above
    another; a box's width is in units of their axis.
    """
    value, position, error = ("x", "y", "error_x") if across else ("y", "x", "error_y")
    low, high = [*table["q1"], *table["median"]], [*table["median"], *table["q3"]]
    nothing = [0.0] * len(table)
    shared = {position: [*names, *names], "showlegend": False, "hoverinfo": "skip"}
    whiskers = {
        "type": "data",
        "array": [*nothing, *rounded(table["p90"] - table["q3"])],
        "arrayminus": [*rounded(table["q1"] - table["p10"]), *nothing],
        "color": colour,
        "thickness": 1.6,
        "width": 5,
    }
    return [
        {
            "type": "scatter",
            "mode": "markers",
            value: rounded([*table["q1"], *table["q3"]]),
            error: whiskers,
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


def _spreads_in_words(table: pd.DataFrame, names: Sequence[str], mean: str) -> list[str]:
    """Hover texts of the dots at the means; `mean` is Plotly's field, such as `x:.3f`."""
    return [
        f"{name}<br>mean %{{{mean}}}, 80 % from {row.p10:+.2f} to {row.p90:+.2f}"
        f"<br>{row.images:,} images<extra></extra>"
        for name, row in zip(names, table.itertuples(), strict=True)
    ]


def _axis(title: str) -> Json:
    return {"title": {"text": title}}


def _named_rows(names: Sequence[str], rows: Sequence[float]) -> Json:
    """An axis of rows that are placed by number and named by its ticks."""
    return {
        "tickvals": list(rows),
        "ticktext": list(names),
        "showgrid": False,
        "range": [-0.6, len(rows) - 0.4],
    }


def rows_height(rows: int) -> int:
    """Pixels of a figure that has a named row for each thing."""
    return FRAME + ROW * max(3, rows)


def _zero_line(axis: str) -> Json:
    """A faint dashed line through the whole plot, at 0 of the axis `x` or `y`."""
    other = "y" if axis == "x" else "x"
    ends = {f"{axis}0": 0, f"{axis}1": 0, f"{other}ref": "paper", f"{other}0": 0, f"{other}1": 1}
    return {"type": "line", **ends, "layer": "below",
            "line": {"color": FAINT, "width": 1, "dash": "dash"}}  # fmt: skip


def _cycled(values: Sequence[str], index: int) -> str:
    return values[index % len(values)]


def _shortened(text: str, most: int) -> str:
    """A name that fits beside a figure."""
    return text if len(text) <= most else text[: most - 1] + "…"


def row_labels(names: Sequence[str], most: int) -> list[str]:
    """Cut and escape names of a figure's rows; those that begin alike stay different."""
    labels: list[str] = []
    for name in names:
        label, again = _shortened(name, most), 1
        while safe(label) in labels:
            again += 1
            label = f"{_shortened(name, most - 4)} ({again})"
        labels.append(safe(label))
    return labels


def rounded(values: Any, digits: int = 4) -> list[float | None]:
    """Round numbers for JSON; None where not defined."""
    column = pd.Series(values, dtype=float)
    return [None if pd.isna(value) else round(float(value), digits) for value in column]


def safe(text: str) -> str:
    """Text from data within Plotly's own markup: no tag of it, no field of a template."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("%{", "%\u200b{")
