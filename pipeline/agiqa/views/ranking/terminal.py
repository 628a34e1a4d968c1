"""The ranking that `agiqa score` shows on a terminal: bars for scores and gates, and thumbnails.

Off a terminal the same rows are separated by tabs. What is shown fits the terminal's width: bars go
first, then the interval; names are cut from the left, where paths are alike.

Thumbnails are drawn by kitty's graphics protocol, by sixel (iTerm2, WezTerm, foot, xterm and
others), or in half blocks where they are asked for. The terminal is asked what it can do, for a
tenth of a second at most, and only where both its ends are ours: a process in the background would
be stopped by it.
"""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, JustifyMethod, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agiqa.core.errors import AgiqaError, printable
from agiqa.data.images import decode
from agiqa.runs.score import Score
from agiqa.runs.score_notes import notes
from agiqa.views.kit.number import interval

BEST, WORST = 25, 10  # shown by default where there are more images than both together
STACKED = 4  # most experts whose weights are drawn side by side
# Full and half a column of a score's bar, low enough that rows stay apart, and its track; the
# weights of an expert each, told apart without colour, too.
BLOCKS, ASCII = ("▄", "▖", "▁", "▆▄▂▁"), ("#", "#", ".", "#=-.")
# Okabe and Ito's palette, readable on dark and light grounds.
COLOURS = ("#3a87c8", "#d9821f", "#1f9e77", "#c46fa0")
# Of a terminal at least so wide: the widths of the score's bar, the gate's bar and the interval.
WIDTHS = ((120, 24, 20, 10), (72, 14, 12, 10), (48, 8, 0, 10), (0, 0, 0, 0))
NAME_AT_LEAST = 12
GAP = 2  # columns between columns
ROWS, THUMBNAIL = 3, 6  # rows and columns of a thumbnail
SIDE = 192  # pixels that are handed over: the protocols send a picture's every pixel

Picture = Callable[[Path], RenderableType]


@dataclass(frozen=True)
class Column:
    """A column of the table; `cell` makes a row's from its rank and its score."""

    head: str | Text
    width: int
    cell: Callable[[int, Score], RenderableType]
    justify: JustifyMethod = "right"
    wraps: bool = False


def print_ranking(
    scores: Sequence[Score],
    provenance: Mapping[str, Any],
    console: Console,
    top: int | None = None,
    picture: Picture | None = None,
) -> None:
    """Print the ranked table of the scores, best first.

    `top` shows that many of the best, None the best and the worst of many; `picture` makes the
    thumbnail of a file.
    """
    count = len(scores)
    best, worst = (count, 0) if count <= BEST + WORST else (BEST, WORST)
    if top is not None:
        best, worst = min(top, count), 0
    columns = _columns(scores, provenance, console, picture)
    table = Table(box=SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column.head, justify=column.justify, no_wrap=not column.wraps)
    ranked = list(enumerate(scores, start=1))
    for rank, score in ranked[:best] + ranked[count - worst :]:
        if worst and rank == count - worst + 1:
            between = Text(f"{count - best - worst:,} more", style="dim italic")
            table.add_row(*(between if column.head == "image" else "" for column in columns))
        table.add_row(*(column.cell(rank, score) for column in columns))
    console.print(table)
    if any(column.head == "gate" for column in columns) and len(provenance["experts"]) <= STACKED:
        console.print(_gate_key(provenance["experts"], console))
    for note in notes(scores, provenance):
        console.print(Text(printable(note), style="dim"))
    if best + worst < count:
        ends = f"the {best:,} best" + (f" and the {worst:,} worst" if worst else "")
        hint = f"{ends} of {count:,} images; --top N shows other numbers, --html FILE all"
        console.print(Text(hint, style="dim"))


def _columns(
    scores: Sequence[Score],
    provenance: Mapping[str, Any],
    console: Console,
    picture: Picture | None,
) -> list[Column]:
    """The columns for which the terminal is wide enough."""
    experts, scale = list(provenance["experts"]), provenance["mos"]
    bar, gate, ends = next(widths for least, *widths in WIDTHS if console.width >= least)

    def thumbnail(_: int, score: Score) -> RenderableType:
        file = Path(score.image)  # not of an image that lies in a shard or at a URL
        return picture(file) if picture and file.is_file() else Text("")

    def held_out(_: int, score: Score) -> Text:
        return Text("–" if score.held_out is None else f"{score.held_out:.2f}")

    def value_of(target: str) -> Callable[[int, Score], Text]:
        return lambda _, score: Text(f"{score.targets[target]:.2f}")

    before = [Column("", len(f"{len(scores):,}"), lambda rank, _: Text(f"{rank:,}", style="dim"))]
    if picture:
        before.append(Column("", THUMBNAIL, thumbnail, "left", wraps=True))
    after = [Column("score", 5, lambda _, score: Text(f"{score.score:.2f}", style="bold"))]
    if ends:
        for name in provenance["targets"][1:]:
            after.append(Column(Text(printable(name)), max(len(name), 4), value_of(name)))
        if any(score.trained_on for score in scores):
            after.append(Column("held out", 8, held_out))
        after.append(Column("90 %", ends, lambda _, s: Text(interval(vars(s), 2), style="dim")))
    if bar:
        after.append(Column("", bar, lambda _, s: _bar(s.score, scale, bar, console), "left"))
    if gate and experts:
        after.append(Column("gate", gate, lambda _, s: _gate(s, experts, gate, console), "left"))
    used = sum(column.width + GAP for column in [*before, *after])
    room = max(NAME_AT_LEAST, console.width - used)
    return [*before, Column("image", room, lambda _, s: _name(s.image, room), "left"), *after]


def _bar(value: float, scale: Mapping[str, float], width: int, console: Console) -> Text:
    """The score's place on the scale, in half columns."""
    whole, part, track, _ = ASCII if console.options.ascii_only else BLOCKS
    low, high = scale["low"], scale["high"]
    share = min(max((value - low) / ((high - low) or 1), 0.0), 1.0)
    full, half = divmod(round(share * width * 2), 2)
    return Text(whole * full + part * half).append(track * (width - full - half), style="dim")


def _gate(score: Score, experts: Sequence[str], width: int, console: Console) -> Text:
    """The experts' weights as one stacked bar; of many experts the one that weighed most."""
    if len(experts) > STACKED:
        top = max(experts, key=lambda name: score.gate[name])
        weight = f" {score.gate[top]:.2f}"
        return Text(printable(top)[: width - len(weight)] + weight)
    *_, heights = ASCII if console.options.ascii_only else BLOCKS
    total = sum(score.gate.values()) or 1.0
    edges = [round(edge / total * width) for edge in accumulate(score.gate[e] for e in experts)]
    drawn = Text()
    for number, (start, end) in enumerate(zip([0, *edges], edges, strict=False)):
        drawn.append(heights[number] * max(end - start, 0), style=COLOURS[number])
    return drawn


def _gate_key(experts: Sequence[str], console: Console) -> Text:
    *_, heights = ASCII if console.options.ascii_only else BLOCKS
    key = Text("gate: ", style="dim")
    for number, expert in enumerate(experts):
        key.append(heights[number] * 2, style=COLOURS[number])
        key.append(f" {printable(expert)}   ", style="dim")
    return key


def _name(image: str, room: int) -> Text:
    name = printable(image)
    if cell_len(name) > room:
        while cell_len(name) >= room:
            name = name[1:]
        name = "…" + name
    return Text(name)


def pictures(mode: str) -> Picture | None:
    """What draws a file's thumbnail on this terminal, or None.

    Args:
        mode: `auto` draws where the terminal can show pictures and colour is not refused
            (NO_COLOR), `always` in half blocks elsewhere, `never` does not.

    Raises:
        AgiqaError: `always` without a terminal, or without textual-image (extra `terminal`).
    """
    if mode == "never" or (mode == "auto" and os.environ.get("NO_COLOR")):
        return None
    if not _is_ours():
        if mode == "always":
            raise AgiqaError(
                "--thumbnails always: expected a terminal on standard input and output, found "
                "none: leave the option out, or write a page with --html FILE."
            )
        return None
    logging.getLogger("textual_image").setLevel(logging.ERROR)  # a guess at a cell's size is fine
    try:
        from textual_image import renderable  # asks the terminal
    except ImportError:
        if mode == "always":
            raise AgiqaError(
                "--thumbnails always needs the terminal extra: pip install 'agiqa[terminal]'."
            ) from None
        return None
    drawn: Any = renderable.Image
    if drawn is renderable.HalfcellImage and mode == "auto":
        return None
    below = drawn is not renderable.SixelImage  # which leaves a line free by itself
    return lambda path: Padding(
        drawn(_small(path), width="auto", height=ROWS), (0, 0, int(below), 0)
    )


def _is_ours() -> bool:
    """Whether standard input and output are a terminal, and this process is in its foreground."""
    streams = (sys.__stdin__, sys.__stdout__)
    if not all(stream and stream.isatty() for stream in streams) or sys.stdout is not streams[1]:
        return False
    if os.environ.get("TERM") in ("dumb", "unknown"):
        return False
    return not hasattr(os, "tcgetpgrp") or os.tcgetpgrp(0) == os.getpgrp()


def _small(path: Path) -> Image.Image:
    """The middle of the picture as a square, so that all take the same columns."""
    return ImageOps.fit(decode(path), (SIDE, SIDE), Image.Resampling.LANCZOS)
