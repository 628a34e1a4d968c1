"""The formats of the tables, by name and by the file names that ask for them."""

from collections.abc import Callable, Sequence
from pathlib import Path

from agiqa.views.tables.grids import Grid
from agiqa.views.tables.latex import latex
from agiqa.views.tables.markdown import markdown
from agiqa.views.tables.page import page
from agiqa.views.tables.tidy_csv import tidy_csv

# Grids, and whether intervals are shown, to text.
FORMATS: dict[str, Callable[[Sequence[Grid], bool], str]] = {
    "markdown": markdown,
    "csv": tidy_csv,
    "latex": latex,
    "html": page,
}
SUFFIXES = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".csv": "csv",
    ".tex": "latex",
    ".html": "html",
    ".htm": "html",
}


def format_of(path: Path) -> str | None:
    """The format that a file's name asks for; None where its suffix says nothing."""
    return SUFFIXES.get(path.suffix.lower())


def render(grids: Sequence[Grid], form: str, intervals: bool = False) -> str:
    """The grids as text of one of FORMATS."""
    return FORMATS[form](grids, intervals)
