"""The ranking that `agiqa score` shows on a terminal: bars for scores and gates, and thumbnails.

Off a terminal the same rows are separated by tabs. What is shown fits the terminal's width: bars go
first, then the interval; names are cut from the left, where paths are alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agiqa.core.errors import printable
from agiqa.runs.score_notes import notes
from agiqa.views.kit.number import interval

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

    from agiqa.runs.score import Score

BEST, WORST = 25, 10  # shown by default where there are more images than both together
STACKED = 4  # most experts whose weights are drawn side by side
FULL, HALF, TRACK = "▄", "▖", "▁"  # low enough that rows stay apart
HEIGHTS = "▆▄▂▁"  # of an expert each: told apart without colour, too
ASCII_FULL, ASCII_TRACK, ASCII_HEIGHTS = "#", ".", "#=-."
# Okabe and Ito's palette, readable on dark and light grounds.
COLOURS = ("#3a87c8", "#d9821f", "#1f9e77", "#c46fa0")
WIDE, MEDIUM, NARROW = 120, 72, 48  # columns of a terminal
NAME_AT_LEAST = 12
GAP = 2  # columns between columns
THUMBNAIL = 6  # columns of one

Picture = Callable[[Path], "RenderableType"]


@dataclass(frozen=True)
class Widths:
    """Columns for each part of a row; 0 leaves a part out."""

    bar: int
    gate: int
    interval: int


def print_ranking(
    scores: Sequence["Score"],
    provenance: Mapping[str, Any],
    console: "Console",
    top: int | None = None,
    picture: Picture | None = None,
) -> None:
    """Print the ranked table.

    Args:
        scores: best first.
        provenance: of the run that made them: experts, scale, target.
        console: a terminal.
        top: show that many of the best; None shows the best and the worst of many.
        picture: makes the thumbnail of a file.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    experts = list(provenance["experts"])
    scale = provenance["mos"]["low"], provenance["mos"]["high"]
    best, worst = _shown(len(scores), top)
    widths = _widths(console.width, len(experts))
    digits = len(f"{len(scores):,}")
    table = Table(box=SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("", justify="right", no_wrap=True)
    if picture:
        table.add_column("")
    table.add_column("image", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    used = digits + 2 * GAP + len("score") + ((THUMBNAIL + GAP) if picture else 0)
    other_targets = list(provenance["targets"][1:]) if widths.interval else []
    for name in other_targets:
        table.add_column(Text(printable(name)), justify="right", no_wrap=True)
        used += max(len(name), len("0.00")) + GAP
    trained = widths.interval > 0 and any(score.trained_on for score in scores)
    if trained:
        table.add_column("held out", justify="right", no_wrap=True)
        used += len("held out") + GAP
    for width, head in ((widths.interval, "90 %"), (widths.bar, ""), (widths.gate, "gate")):
        if width:
            table.add_column(head, justify="right" if head == "90 %" else "left", no_wrap=True)
            used += width + GAP
    room = max(NAME_AT_LEAST, console.width - used)
    plain = console.options.ascii_only
    ranked = list(enumerate(scores, start=1))
    for rank, score in ranked[:best] + ranked[len(ranked) - worst :]:
        if worst and rank == len(scores) - worst + 1:
            between = f"{len(scores) - best - worst:,} more"
            table.add_row("", *([""] if picture else []), Text(between, style="dim italic"))
        cells: list[RenderableType] = [Text(f"{rank:,}", style="dim")]
        if picture:
            file = Path(score.image)  # not of an image that lies in a shard or at a URL
            cells.append(picture(file) if file.is_file() else Text(""))
        cells += [_name(score.image, room), Text(f"{score.score:.2f}", style="bold")]
        cells += [Text(f"{score.targets[name]:.2f}") for name in other_targets]
        if trained:
            cells.append(Text("–" if score.held_out is None else f"{score.held_out:.2f}"))
        if widths.interval:
            cells.append(Text(interval({"low": score.low, "high": score.high}, 2), style="dim"))
        if widths.bar:
            cells.append(_bar(score.score, scale, widths.bar, plain))
        if widths.gate:
            cells.append(_gate(score, experts, widths.gate, plain))
        table.add_row(*cells)
    console.print(table)
    _print_beneath(console, scores, provenance, (best, worst), experts, widths.gate > 0)


def _shown(count: int, top: int | None) -> tuple[int, int]:
    """How many of the best and of the worst are shown."""
    if top is not None:
        return min(top, count), 0
    return (count, 0) if count <= BEST + WORST else (BEST, WORST)


def _widths(columns: int, experts: int) -> Widths:
    if columns >= WIDE:
        return Widths(bar=24, gate=20 if experts else 0, interval=10)
    if columns >= MEDIUM:
        return Widths(bar=14, gate=12 if experts else 0, interval=10)
    return Widths(bar=8, gate=0, interval=10) if columns >= NARROW else Widths(0, 0, 0)


def _bar(value: float, scale: tuple[float, float], width: int, plain: bool) -> "Text":
    """The score's place on the scale, in half columns."""
    from rich.text import Text

    low, high = scale
    share = min(max((value - low) / ((high - low) or 1), 0.0), 1.0)
    full, half = divmod(round(share * width * 2), 2)
    drawn = Text((ASCII_FULL if plain else FULL) * full)
    if half:
        drawn.append(ASCII_FULL if plain else HALF)
    return drawn.append((ASCII_TRACK if plain else TRACK) * (width - full - half), style="dim")


def _gate(score: "Score", experts: Sequence[str], width: int, plain: bool) -> "Text":
    """The experts' weights as one stacked bar; of many experts the one that weighed most."""
    from rich.text import Text

    if len(experts) > STACKED:
        top = max(experts, key=lambda name: score.gate[name])
        weight = f" {score.gate[top]:.2f}"
        return Text(printable(top)[: width - len(weight)] + weight)
    total = sum(score.gate.values()) or 1.0
    edges = [round(edge / total * width) for edge in accumulate(score.gate[e] for e in experts)]
    drawn = Text()
    for number, (start, end) in enumerate(zip([0, *edges], edges, strict=False)):
        sign = (ASCII_HEIGHTS if plain else HEIGHTS)[number]
        drawn.append(sign * max(end - start, 0), style=COLOURS[number])
    return drawn


def _name(image: str, room: int) -> "Text":
    from rich.cells import cell_len
    from rich.text import Text

    name = printable(image)
    if cell_len(name) > room:
        while cell_len(name) >= room:
            name = name[1:]
        name = "…" + name
    return Text(name)


def _print_beneath(
    console: "Console",
    scores: Sequence["Score"],
    provenance: Mapping[str, Any],
    shown: tuple[int, int],
    experts: Sequence[str],
    gates: bool,
) -> None:
    """The key of the gate bars, what to know of the scores, and how many are not shown."""
    from rich.text import Text

    plain = console.options.ascii_only
    if gates and len(experts) <= STACKED:
        key = Text("gate: ", style="dim")
        for number, expert in enumerate(experts):
            key.append((ASCII_HEIGHTS if plain else HEIGHTS)[number] * 2, style=COLOURS[number])
            key.append(f" {printable(expert)}   ", style="dim")
        console.print(key)
    for note in notes(scores, provenance):
        console.print(Text(printable(note), style="dim"))
    best, worst = shown
    if best + worst < len(scores):
        ends = f"the {best:,} best" + (f" and the {worst:,} worst" if worst else "")
        hint = f"{ends} of {len(scores):,} images; --top N shows other numbers, --html FILE all"
        console.print(Text(hint, style="dim"))
