"""Results side by side: evaluated runs and published figures, as tables in several formats.

evaluated, published   where results come from
grids                  results laid out in rows and columns
wording, formats       headings, captions and cells in words; the four formats
"""

from agiqa.views.tables.evaluated import find_results
from agiqa.views.tables.formats import FORMATS, format_of, render
from agiqa.views.tables.grids import grids_of
from agiqa.views.tables.published import published_results

__all__ = ["FORMATS", "find_results", "format_of", "grids_of", "published_results", "render"]
