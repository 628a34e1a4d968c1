"""Fingerprints on a terminal: dotted fields, one a line, and two values beside each other."""

import shutil
import textwrap
from collections.abc import Mapping

from agiqa.cli.output import echo

INDENT = "  "


def print_tree(tree: Mapping[str, object]) -> None:
    """Each field of nested mappings as `dotted.name  value`, long texts wrapped beneath."""
    rows = list(_flat(tree, ""))
    width = min(34, max((len(name) for name, _ in rows), default=0))
    for name, value in rows:
        room = max(20, _room() - width - len(INDENT) - 2)
        first, *rest = textwrap.wrap(value_text(value), room, break_on_hyphens=False) or [""]
        if len(name) > width:
            echo(f"{INDENT}{name}")
            name = ""
        echo(f"{INDENT}{name:<{width}}  {first}")
        for line in rest:
            echo(f"{INDENT}{'':<{width}}  {line}")


def print_difference(field: str, before: object, now: object, sides: tuple[str, str]) -> None:
    """A field and its two values: in one line where they fit, else one under the other."""
    room = _room()
    values = value_text(before), value_text(now)
    line = f"{INDENT}{field}: {values[0]} -> {values[1]}"
    if len(line) <= room:
        echo(line)
        return
    echo(f"{INDENT}{field}")
    width = max(map(len, sides))
    for side, value in zip(sides, values, strict=True):
        start = f"{INDENT * 2}{side:<{width}}  "
        beneath = " " * len(start)
        echo(textwrap.fill(value, room, initial_indent=start, subsequent_indent=beneath))


def print_wrapped(line: str, indent: str = INDENT) -> None:
    """A long line, its continuation indented."""
    echo(textwrap.fill(line, _room(), subsequent_indent=indent, break_on_hyphens=False))


def _room() -> int:
    """Measure the terminal's columns; off a terminal a line stays a line."""
    return shutil.get_terminal_size((100_000, 24)).columns


def value_text(value: object) -> str:
    """A value as JSON, but plain texts as they are."""
    if isinstance(value, str) and value and value == value.strip() and "\n" not in value:
        return value
    from agiqa.core.json_text import json_text

    try:
        return json_text(value)
    except TypeError:  # stands for a field that is not there
        return str(value)


def _flat(tree: Mapping[str, object], prefix: str) -> "list[tuple[str, object]]":
    rows: list[tuple[str, object]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value))
    return rows
