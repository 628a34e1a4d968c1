"""Figures for the page, as Plotly's JSON: plain dicts of `data` and `layout`.

Colours are names of the page's CSS variables (`--series-1`), which `plots.js` resolves, so that one
figure serves the light and the dark page; it also adds fonts and grid. Points of images are not
written out again: a trace with `meta.generators` gets them from the page's image columns. Series
differ in marker or dashes as well as in colour. Nothing here imports plotly: tests hold the dicts
to it. In all of them `truth` is the MOS in the page's words.
"""

from agiqa.views.report.figures.agreement import calibration_figure, scatter_figure
from agiqa.views.report.figures.curves import learning_curves, split_strip
from agiqa.views.report.figures.gate import gate_figures
from agiqa.views.report.figures.residuals import by_generator, by_prompt, by_range
from agiqa.views.report.figures.side_by_side import difference_figure, splits_figure
from agiqa.views.report.figures.style import PlotlyFigure

__all__ = [
    "PlotlyFigure",
    "by_generator",
    "by_prompt",
    "by_range",
    "calibration_figure",
    "difference_figure",
    "gate_figures",
    "learning_curves",
    "scatter_figure",
    "split_strip",
    "splits_figure",
]
