"""Results side by side: evaluated runs and published figures, as tables in several formats."""

from agiqa.views.tables.evaluated import Found, find_results
from agiqa.views.tables.formats import FORMATS, format_of, render
from agiqa.views.tables.grids import Grid, cross_grid, grids_of, within_grid
from agiqa.views.tables.published import published_results
from agiqa.views.tables.results import FIGURES, Result, Value

__all__ = [
    "FIGURES",
    "FORMATS",
    "Found",
    "Grid",
    "Result",
    "Value",
    "cross_grid",
    "find_results",
    "format_of",
    "grids_of",
    "published_results",
    "render",
    "within_grid",
]
