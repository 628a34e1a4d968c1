"""Results side by side: evaluated runs and published figures, as tables in several formats."""

from agiqa.result_tables.evaluated import Found, find_results
from agiqa.result_tables.formats import FORMATS, format_of, render
from agiqa.result_tables.grids import Grid, cross_grid, grids_of, within_grid
from agiqa.result_tables.published import published_results
from agiqa.result_tables.results import FIGURES, Result, Value

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
