"""Which figures a page has: the run's images through `summaries` into `figures/`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from agiqa.views.report import figures, summaries
from agiqa.views.report.figures import Figure
from agiqa.views.report.results import Results


def run_figures(results: Results, images: pd.DataFrame) -> dict[str, Figure]:
    """The run's figures by the name of their place in the page.

    Args:
        results: the run.
        images: of `average_images`.
    """
    low, high = scale(results, images)
    truth, experts = results.truth, results.experts
    drawn: dict[str, Figure | None] = {
        "scatter": figures.scatter_figure(images, truth),
        "calibration": figures.calibration_figure(summaries.calibration(images), truth),
        "by-generator": figures.by_generator(summaries.residuals_by_generator(images), truth),
        "by-range": figures.by_range(summaries.residuals_by_range(images, low, high), truth),
        "by-prompt": figures.by_prompt(
            summaries.residuals_by_prompt(images), truth, summaries.prompt_share(images)
        ),
        "strip": figures.split_strip(results.metrics),
    }
    if experts:
        of_gate = figures.gate_figures(
            summaries.gate_by_generator(results.predictions, experts),
            summaries.gate_by_mos(images, experts),
            truth,
        )
        for place, (by_generator, along) in enumerate(of_gate):
            drawn |= {f"gate-{place}": by_generator, f"gate-mos-{place}": along}
    for place, figure in enumerate(figures.learning_curves(results.curves)):
        drawn[f"curves-{place}"] = figure
    return {name: figure for name, figure in drawn.items() if figure is not None}


def figures_beside(runs: Sequence[Results], comparison: Mapping[str, Any]) -> dict[str, Figure]:
    """Figures of several runs; with a single split there is nothing to join.

    Args:
        runs: in the page's order.
        comparison: of `agiqa.runs.compare.compare`.
    """
    drawn = {"differences": figures.difference_figure(comparison)}
    if comparison["splits"] > 1:
        drawn["by-split"] = figures.splits_figure(runs)
    return drawn


def plots(drawn: Mapping[str, Figure]) -> dict[str, Any]:
    """The figures for JSON, as `plots.js` takes them."""
    return {
        name: {
            "title": each.title,
            "caption": each.caption,
            "spoken": each.spoken,
            "plot": each.plot,
            "filters": each.filters,
        }
        for name, each in drawn.items()
    }


def scale(results: Results, images: pd.DataFrame) -> tuple[float, float]:
    """The ends of the MOS, in training and in the test."""
    low, high = results.provenance["mos"]["low"], results.provenance["mos"]["high"]
    if len(images):
        low, high = min(low, float(images["mos"].min())), max(high, float(images["mos"].max()))
    return math.floor(low * 1000) / 1000, math.ceil(high * 1000) / 1000
