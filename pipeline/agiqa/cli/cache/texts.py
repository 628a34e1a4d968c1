"""Stores on a terminal: bytes, moments and counts as people read them, fingerprints as fields."""

import shutil
import textwrap
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import click

from agiqa.cli.options import FOLDER, RUNS
from agiqa.cli.output import echo

INDENT = "  "

runs = click.option(
    "--runs",
    type=FOLDER,
    default=RUNS,
    show_default=True,
    help="Folder of runs, to say which of them used a store.",
)


def size_text(size: int) -> str:
    """Write bytes in decimal units: 4.2 MB."""
    if size < 1000:
        return f"{size} B"
    value = float(size)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.5 or unit == "TB":
            break
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"


def age_text(written: float) -> str:
    """How long ago a moment was (seconds since 1970): 5 min, 3 h, 12 d."""
    seconds = max(0.0, time.time() - written)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def moment_text(written: float) -> str:
    """A moment for programs: ISO 8601 in UTC."""
    return datetime.fromtimestamp(written, UTC).isoformat(timespec="seconds")


def count_text(count: int, noun: str) -> str:
    """Write a count with its noun, as `1 row` or `2,408 rows`."""
    plural = "shelves" if noun == "shelf" else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def print_fields(fields: Mapping[str, object]) -> None:
    """Each field as `dotted.name  value`, long texts wrapped beneath."""
    width = min(34, max(map(len, fields), default=0))
    for name, value in fields.items():
        room = max(20, _room() - width - len(INDENT) - 2)
        first, *rest = _wrap(value_text(value), room) or [""]
        if len(name) > width:
            echo(f"{INDENT}{name}")
            name = ""
        echo(f"{INDENT}{name:<{width}}  {first}")
        for line in rest:
            echo(f"{INDENT}{'':<{width}}  {line}")


def print_difference(field: str, there: object, now: object) -> None:
    """Print a field and its two values: in one line where they fit, else one under the other."""
    line = f"{INDENT}{field}: {value_text(there)} -> {value_text(now)}"
    if len(line) <= _room():
        echo(line)
        return
    echo(f"{INDENT}{field}")
    for side, value in (("there", there), ("now", now)):
        start = f"{INDENT * 2}{side:<5}  "
        for part in _wrap(value_text(value), _room(), start, " " * len(start)):
            echo(part)


def print_wrapped(line: str, indent: str = INDENT) -> None:
    """A long line, its continuation indented."""
    for part in _wrap(line, _room(), beneath=indent):
        echo(part)


def _wrap(text: str, room: int, start: str = "", beneath: str = "") -> list[str]:
    """Break a text at its spaces alone: a path or a command is copied from the terminal."""
    return textwrap.wrap(
        text,
        room,
        initial_indent=start,
        subsequent_indent=beneath,
        break_long_words=False,
        break_on_hyphens=False,
    )


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


def flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """The fields of nested mappings by their dotted names."""
    fields: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            fields |= flat(value, f"{prefix}{key}.")
        else:
            fields[f"{prefix}{key}"] = value
    return fields
