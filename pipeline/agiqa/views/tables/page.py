"""Grids as one HTML page that needs nothing from outside: no scripts, no fonts, no pictures."""

import base64
import hashlib
import importlib.metadata
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

from agiqa.views.tables import wording
from agiqa.views.tables.grids import Column, Grid

STYLE = Path(__file__).with_name("page.css")


def page(grids: Sequence[Grid], intervals: bool) -> str:
    """The page; its policy allows the one style sheet inside, by hash, and nothing else."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("agiqa.views.tables", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = STYLE.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return templates.get_template("page.html.j2").render(
        version=importlib.metadata.version("agiqa"),
        style=style,
        digest=digest,
        tables=[_content(grid, intervals) for grid in grids],
    )


def _content(grid: Grid, intervals: bool) -> dict[str, object]:
    """What the template names of a table."""
    return {
        "title": wording.title(grid),
        "caption": wording.caption(grid, intervals),
        "data": _spans(grid, wording.data),
        "protocols": [] if grid.across else _spans(grid, lambda c: (wording.data(c), c.protocol)),
        "figures": [wording.heading(f) for _ in grid.columns for f in grid.figures],
        "width": len(grid.figures),
        "rows": [
            {
                "name": wording.row_name(row),
                "ours": row.ours,
                "cells": [
                    _cell(wording.cell(each, f, intervals))
                    for each in row.cells
                    for f in grid.figures
                ],
            }
            for row in grid.rows
        ],
        "sources": wording.sources(grid),
    }


def _cell(text: str) -> dict[str, str]:
    """The interval apart, since it stands below."""
    value, bracket, interval = text.partition(" [")
    return {"text": value, "interval": bracket.strip() + interval}


def _spans(grid: Grid, by: Callable[[Column], object]) -> list[tuple[str, int]]:
    """Headings over several columns each: text, columns."""
    spans = []
    for name, group in groupby(grid.columns, key=by):
        columns = list(group)
        text = name if isinstance(name, str) else wording.protocol(columns[0])
        spans.append((text, len(columns) * len(grid.figures)))
    return spans
