"""Bytes, moments and counts as people read them; and folders of stores that commands share."""

import time
from datetime import UTC, datetime
from pathlib import Path

import click

from agiqa.cli.options import RUNS

runs = click.option(
    "--runs",
    type=click.Path(path_type=Path, file_okay=False),
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
