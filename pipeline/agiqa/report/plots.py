"""The report's plots: matplotlib figures as inline SVG that takes the page's fonts and colours.

Figures are drawn in stand-in colours, which become the page's CSS variables, and text stays text;
so one drawing serves the light and the dark page, and can be searched and read aloud. Series
differ in marker or dashes as well as in colour. No pyplot: nothing global is left behind.
"""

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from agiqa.metrics import fit_logistic
from agiqa.report.results import GATE, Results

# Stand-ins, and what replaces them. Never seen, so any colours that nothing else uses.
INK, FAINT, GRID = "#010101", "#010102", "#010103"
SERIES = ("#010104", "#010105", "#010106", "#010107", "#010108", "#010109")
VARIABLES = {INK: "--ink", FAINT: "--muted", GRID: "--rule"} | {
    colour: f"--series-{place}" for place, colour in enumerate(SERIES, start=1)
}
MARKERS = ("o", "s", "D", "^", "v", "P")
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
WIDTH = 5.2  # inches; at 72 units an inch about a phone's width, so text is not shrunk there
MOST_POINTS = 5000  # above, the scatter's points become one bitmap, in a colour for both pages
ON_BOTH = "#3d8fd1"
MOST_ROWS = 24  # generators in the gate plot
SHORT = {
    "ridge": "Ridge, both",
    "ridge_visual": "Ridge, visual",
    "ridge_semantic": "Ridge, semantic",
    "visual": "Light, visual",
    "semantic": "Light, semantic",
    "moe": "Mixture",
}
STYLE = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",  # for measuring; the page's own font is shown
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "text.parse_math": False,  # a generator may have a dollar in its name
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}


def scatter(images: pd.DataFrame, truth: str) -> Markup:
    """Predicted score against MOS, one point an image, with the fitted logistic.

    Args:
        images: of `average_images`.
        truth: MOS, in the page's words.
    """

    def draw(axes: Any) -> None:
        score, mos = images["score"].to_numpy(), images["mos"].to_numpy()
        many = len(images) > MOST_POINTS
        axes.scatter(
            score,
            mos,
            s=9,
            linewidths=0,
            alpha=0.2 if many else 0.45,
            color=ON_BOTH if many else SERIES[0],
            rasterized=many,
        )
        both = np.concatenate([score, mos]) if len(images) else np.zeros(1)
        low, high = float(both.min()), float(both.max())
        room = 0.04 * (high - low) or 0.5
        low, high = low - room, high + room
        axes.plot([low, high], [low, high], color=FAINT, lw=1, ls=DASHES[1], label="exact")
        if len(images) >= 2:
            order = np.argsort(score)
            axes.plot(
                score[order],
                fit_logistic(mos, score)[order],
                color=SERIES[1],
                lw=2,
                label="fitted logistic",
            )
        axes.set(xlim=(low, high), ylim=(low, high), xlabel="predicted score", aspect="equal")
        axes.set_ylabel(truth)
        axes.legend(loc="upper left")

    what = f"Scatter plot of {len(images):,} images: predicted score across, {truth} upwards."
    return _svg("scatter", what, 4.6, draw)


def gates(results: Results) -> Markup:
    """The gate's weight for each expert, by generator: median, and the middle 80 %."""
    experts = results.experts
    columns = [GATE + expert for expert in experts]
    groups = dict(list(results.predictions.groupby("generator")))
    largest = sorted(groups, key=lambda g: -len(groups[g]))[:MOST_ROWS]
    order = sorted(largest, key=lambda g: groups[g][columns[0]].median())
    weights = results.predictions[columns].to_numpy()
    shares = bool(np.allclose(weights.sum(axis=1), 1, atol=1e-3) and (weights >= -1e-6).all())

    def draw(axes: Any) -> None:
        for place, (expert, column) in enumerate(zip(experts, columns, strict=True)):
            rows = np.arange(len(order)) + 0.2 * ((len(experts) - 1) / 2 - place)
            low, middle, high = np.transpose(
                [groups[g][column].quantile([0.1, 0.5, 0.9]).to_numpy() for g in order]
            )
            colour = SERIES[place % len(SERIES)]
            axes.hlines(rows, low, high, color=colour, lw=1.6, alpha=0.55)
            axes.plot(
                middle,
                rows,
                ls="",
                marker=MARKERS[place % len(MARKERS)],
                ms=5,
                color=colour,
                label=expert.replace("_", " "),
            )
        axes.set_xlabel("gate weight")
        if shares:
            axes.set_xlabel("gate weight (dashed: equal shares)")
            axes.axvline(1 / len(experts), color=FAINT, lw=1, ls=DASHES[1], zorder=0)
        axes.set_yticks(range(len(order)), [_shortened(str(g) or "all images") for g in order])
        axes.set_ylim(-0.6, len(order) - 0.4)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=3,
            handletextpad=0.1,
            columnspacing=0.8,
            fontsize="small",
        )

    what = f"Gate weights of {', '.join(experts)} for each of {len(order)} generators."
    return _svg("gates", what, max(2.2, min(9.0, 1.1 + 0.36 * len(order))), draw)


def split_strip(metrics: dict[str, Any]) -> Markup:
    """Every split's SRCC for every model, the median marked."""
    models = [name for name in SHORT if name in metrics["per_split"]]

    def draw(axes: Any) -> None:
        for place, name in enumerate(reversed(models)):
            values = [row["srcc"] for row in metrics["per_split"][name] if row["srcc"] is not None]
            colour = SERIES[0] if name == "moe" else FAINT
            axes.plot(
                values, [place] * len(values), ls="", marker="o", ms=6, alpha=0.4, color=colour,
                mew=0,
            )  # fmt: skip
            if values:
                middle = float(np.median(values))
                axes.plot([middle] * 2, [place - 0.32, place + 0.32], color=colour, lw=2.2)
        axes.set_yticks(range(len(models)), [SHORT[name] for name in reversed(models)])
        axes.set_ylim(-0.6, len(models) - 0.4)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("SRCC on the test side")

    return _svg("splits", "Dot plot of the SRCC of every split for every model.", 4.1, draw)


def learning_curves(curves: pd.DataFrame) -> Markup:
    """SRCC on the validation side by epoch: median over splits, and their middle half."""
    names = {"moe": "mixture of experts", "visual": "visual only", "semantic": "semantic only"}

    def draw(axes: Any) -> None:
        ends = []
        for place, (model, label) in enumerate(names.items()):
            rows = curves[(curves["model"] == model) & curves["val_srcc"].notna()]
            if rows.empty:
                continue
            by_epoch = rows.groupby("epoch")["val_srcc"]
            low, middle, high = (by_epoch.quantile(q) for q in (0.25, 0.5, 0.75))
            epochs = middle.index.to_numpy()
            axes.fill_between(epochs, low, high, color=SERIES[place], alpha=0.18, lw=0)
            axes.plot(epochs, middle, color=SERIES[place], lw=2, ls=DASHES[place], label=label)
            ends.append((float(middle.iloc[-1]), float(high.max())))
        if ends:
            bottom, top = min(end for end, _ in ends) - 0.12, max(top for _, top in ends)
            axes.set_ylim(bottom, top + 0.06 * (top - bottom))
            axes.legend(loc="lower right")
        axes.set(xlabel="epoch", ylabel="SRCC on the validation side")

    what = "Learning curves: SRCC on the validation side by epoch for three networks."
    return _svg("curves", what, 4.1, draw)


def _svg(name: str, what: str, height: float, draw: Callable[[Any], None]) -> Markup:
    """Draw on fresh axes of `height` inches; the SVG for the page, `what` as its spoken name."""
    import matplotlib.style
    from matplotlib.figure import Figure

    file = io.StringIO()
    with matplotlib.style.context(["default", STYLE | {"svg.hashsalt": name}]):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.add_subplot())
        with warnings.catch_warnings():  # the browser has the glyphs that matplotlib's font lacks
            warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
            figure.savefig(file, format="svg", transparent=True, dpi=200, metadata={"Date": None})
    return _for_page(file.getvalue(), name, what)


def _for_page(svg: str, name: str, what: str) -> Markup:
    """Cut the SVG down to its element, make its ids its own, and give it the page's look."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans)", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    size = re.search(r'viewBox="[^"]*"', svg)
    head = f'<svg role="img" aria-label="{escape(what)}" {size.group() if size else ""}>'
    return Markup(re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1))


def _shortened(text: str, most: int = 22) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
