"""Every figure is what plotly.py accepts, and draws the numbers that it was given."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.offline
import pytest

from agiqa.views.report import figures, summaries
from agiqa.views.report.content import run_figures
from agiqa.views.report.figures import PlotlyFigure, row_labels, safe
from agiqa.views.report.results import average_images, read_results

BUNDLED = {"scatter", "bar", "pie"}  # what Plotly's basic bundle draws


def validated(figure: PlotlyFigure) -> go.Figure:
    """As plotly.py reads it, with a colour for each of the page's variables."""

    def coloured(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: coloured(each) for key, each in value.items()}
        if isinstance(value, list):
            return [coloured(each) for each in value]
        return "#123456" if isinstance(value, str) and value.startswith("--") else value

    return go.Figure(coloured({"data": figure.data, "layout": figure.layout}))


def test_plotly_accepts_every_figure_of_a_run(finished_run: Path) -> None:
    results = read_results(finished_run / "run")
    drawn = run_figures(results, average_images(results))
    assert len(drawn) == 12
    for name, figure in drawn.items():
        assert validated(figure).data, name
        assert {trace["type"] for trace in figure.data} <= BUNDLED, name
        assert figure.spoken.endswith("."), name
        assert figure.layout["height"] > 100


def test_the_page_carries_the_plotly_whose_schema_that_was() -> None:
    script = (files("agiqa.views.report") / "plotly" / "plotly-basic.min.js").read_text("utf-8")
    version = plotly.offline.get_plotlyjs_version()
    assert script.startswith(f"/**\n* plotly.js (basic - minified) v{version}\n")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_images_are_still_drawn(finished_run: Path, count: int) -> None:
    results = read_results(finished_run / "run")
    images = average_images(results)[:count]
    for name, figure in run_figures(results, images).items():
        assert validated(figure), name


def test_the_scatter_names_generators_and_leaves_points_to_the_columns() -> None:
    count = 30
    frame = pd.DataFrame(
        {
            "generator": [f"g{row % 12}" for row in range(count)],
            "mos": np.linspace(1, 5, count),
            "score": np.linspace(1, 5, count) ** 1.1,
        }
    )
    plot = figures.scatter_figure(frame, "MOS")
    points = [trace for trace in plot.data if "meta" in trace]
    assert len(points) == 11
    assert points[0]["name"] == "2 others"
    named = [name for trace in points for name in trace["meta"]["generators"]]
    assert sorted(named) == sorted({f"g{number}" for number in range(12)})
    assert len({(t["marker"]["color"], t["marker"]["symbol"]) for t in points}) == 11
    assert all("x" not in trace for trace in points)
    (curve,) = [trace for trace in plot.data if trace.get("name") == "fitted logistic"]
    np.testing.assert_allclose([curve["y"][0], curve["y"][-1]], [1, 5], atol=0.2)


def test_boxes_and_dots_are_the_tables_numbers() -> None:
    table = pd.DataFrame(
        {"generator": ["a", "b"], "images": [5, 1200], "mean": [-0.25, 0.5], "sd": [0.1, 0.2],
         "p10": [-1.0, 0.0], "q1": [-0.5, 0.1], "median": [-0.2, 0.4], "q3": [0.0, 0.8],
         "p90": [0.5, 1.5]}
    )  # fmt: skip
    plot = figures.by_generator(table, "MOS")
    whiskers, bars, dots = plot.data
    np.testing.assert_allclose(bars["base"], [-0.5, 0.1, -0.2, 0.4])  # to the median, from it
    np.testing.assert_allclose(np.add(bars["base"], bars["x"]), [-0.2, 0.4, 0.0, 0.8])
    reach = whiskers["error_x"]
    np.testing.assert_allclose(np.subtract(whiskers["x"], reach["arrayminus"])[:2], table["p10"])
    np.testing.assert_allclose(np.add(whiskers["x"], reach["array"])[2:], table["p90"])
    assert whiskers["y"] == bars["y"] == ["a", "b", "a", "b"]
    upright = figures.by_range(table.assign(low=[1.0, 2.0], high=[2.0, 3.0]), "MOS")
    whiskers, bars, _ = upright.data
    assert whiskers["x"] == bars["x"] == [1.5, 2.5, 1.5, 2.5]
    assert bars["width"] == pytest.approx(0.7)
    assert validated(upright).data
    assert validated(plot).data
    assert dots["x"] == [-0.25, 0.5]
    assert dots["customdata"] == ["a", "b"]
    assert "80 % from +0.00 to +1.50<br>1,200 images" in dots["hovertemplate"][1]


def test_names_from_data_are_no_markup_and_no_template() -> None:
    assert safe('<b>&%{x} "quoted"') == '&lt;b&gt;&amp;%\u200b{x} "quoted"'


def test_long_names_that_begin_alike_stay_two_rows() -> None:
    labels = row_labels(["x" * 40 + "1", "x" * 40 + "2", "short"], 20)
    assert len(set(labels)) == 3
    assert all(len(label) <= 20 for label in labels)


def test_differences_are_drawn_with_both_intervals() -> None:
    values = {"mean": 0.01, "low": -0.01, "high": 0.03, "image_low": 0.0, "image_high": 0.015}
    single = values | {"low": float("nan"), "high": float("nan")}
    comparison = {
        "contenders": [{"name": "a"}, {"name": "b"}, {"name": "c"}],
        "comparisons": [
            {"name": "b", "figures": {"srcc": values}},
            {"name": "c", "figures": {"srcc": single}},
        ],
    }
    plot = figures.difference_figure(comparison)
    over_splits, over_images = plot.data
    assert over_splits["error_x"]["array"] == [0.02, None]  # no interval: no bar
    assert over_splits["error_x"]["arrayminus"] == [0.02, None]
    assert over_images["error_x"]["array"] == [0.005, 0.005]
    assert over_images["error_x"]["arrayminus"] == [0.01, 0.01]
    assert validated(plot).data


def test_learning_curves_have_a_line_for_each_split() -> None:
    curves = pd.DataFrame(
        [("moe", seed, epoch, 0.5 + seed / 10 + epoch / 100)
         for seed in range(3) for epoch in range(4)],
        columns=["model", "seed", "epoch", "val_srcc"],
    )  # fmt: skip
    only = figures.learning_curves(curves)
    assert only is not None
    *lines, median = only.data
    assert len(lines) == 3
    assert median["y"] == [0.6, 0.61, 0.62, 0.63]
    assert only.title == "Mixture of experts"


def test_no_prompts_no_figure_of_prompts() -> None:
    table = summaries.residuals_by_prompt(pd.DataFrame({"group": ["", ""], "error": [0.0, 1.0]}))
    assert figures.by_prompt(table, "MOS") is None
