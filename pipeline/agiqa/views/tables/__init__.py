"""Results side by side: evaluated runs and published figures, as tables in several formats.

results   where results come from: runs, and `published.yaml`
grids     results laid out in rows and columns
formats   headings, captions and cells in words; the four formats
"""

from agiqa.views.tables.formats import FORMATS, format_of, render
from agiqa.views.tables.grids import grids_of
from agiqa.views.tables.results import find_results, published_results

__all__ = ["FORMATS", "find_results", "format_of", "grids_of", "published_results", "render"]
