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
    from rich.console import Console, JustifyMethod, RenderableType
    from rich.text import Text

    from agiqa.runs.score import Score

BEST, WORST = 25, 10  # shown by default where there are more images than both together
STACKED = 4  # most experts whose weights are drawn side by side
FULL, HALF, TRACK = "▄", "▖", "▁"  # low enough that rows stay apart
HEIGHTS = "▆▄▂▁"  # of an expert each: told apart without colour, too
ASCII_FULL, ASCII_TRACK, ASCII_HEIGHTS = "#", ".", "#=-."
# Okabe and Ito's palette, readable on dark and light grounds.
COLOURS = ("#3a87c8", "#d9821f", "#1f9e77", "#c46fa0")
# Of a terminal at least so wide: the widths of the score's bar, the gate's bar and the interval.
WIDTHS = ((120, 24, 20, 10), (72, 14, 12, 10), (48, 8, 0, 10), (0, 0, 0, 0))
NAME_AT_LEAST = 12
GAP = 2  # columns between columns
THUMBNAIL = 6  # columns of one

Picture = Callable[[Path], "RenderableType"]


@dataclass(frozen=True)
class Column:
    """A column of the table; `cell` makes a row's from its rank and its score."""

    head: "str | Text"
    width: int
    cell: "Callable[[int, Score], RenderableType]"
    justify: "JustifyMethod" = "right"
    wraps: bool = False


def print_ranking(
    scores: Sequence["Score"],
    provenance: Mapping[str, Any],
    console: "Console",
    top: int | None = None,
    picture: Picture | None = None,
) -> None:
    """Print the ranked table of the scores, best first.

    `top` shows that many of the best, None the best and the worst of many; `picture` makes the
    thumbnail of a file.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

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
    gates = any(column.head == "gate" for column in columns)
    _print_beneath(console, scores, provenance, (best, worst), gates)


def _columns(
    scores: Sequence["Score"],
    provenance: Mapping[str, Any],
    console: "Console",
    picture: Picture | None,
) -> list[Column]:
    """The columns for which the terminal is wide enough."""
    from rich.text import Text

    experts, plain = list(provenance["experts"]), console.options.ascii_only
    scale = provenance["mos"]["low"], provenance["mos"]["high"]
    bar, gate, ends = next(widths for least, *widths in WIDTHS if console.width >= least)

    def thumbnail(_: int, score: "Score") -> "RenderableType":
        file = Path(score.image)  # not of an image that lies in a shard or at a URL
        return picture(file) if picture and file.is_file() else Text("")

    def held_out(_: int, score: "Score") -> Text:
        return Text("–" if score.held_out is None else f"{score.held_out:.2f}")

    def value_of(target: str) -> "Callable[[int, Score], Text]":
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
        after.append(Column("", bar, lambda _, s: _bar(s.score, scale, bar, plain), "left"))
    if gate and experts:
        after.append(Column("gate", gate, lambda _, s: _gate(s, experts, gate, plain), "left"))
    used = sum(column.width + GAP for column in [*before, *after])
    room = max(NAME_AT_LEAST, console.width - used)
    return [*before, Column("image", room, lambda _, s: _name(s.image, room), "left"), *after]


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
    gates: bool,
) -> None:
    """The key of the gate bars, what to know of the scores, and how many are not shown."""
    from rich.text import Text

    experts, plain = list(provenance["experts"]), console.options.ascii_only
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
