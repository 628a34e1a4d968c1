"""What commands print: names out of runs, packs, tables and images move no cursor.

Every line goes through `echo`, every table through a `console` (a test holds both), log lines
through `PlainFormatter`. score.py alone, which draws pictures, escapes its names itself.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agiqa.core.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

Record = TypeVar("Record")


def echo(text: object = "", err: bool = False, nl: bool = True, bold: str = "") -> None:
    """Print text, with what a terminal would obey escaped; `bold` is stressed before it."""
    plain = printable(text, lines=True)
    if bold:
        plain = click.style(printable(bold, lines=True), bold=True) + plain
    click.echo(plain, err=err, nl=nl)


def console(**options: Any) -> "Console":
    """Make a rich console; `options` are its own."""
    from rich.console import Console
    from rich.segment import Segment

    class PlainConsole(Console):
        """Its own control sequences pass, those in the text do not."""

        def render(self, *arguments: Any, **keywords: Any) -> Iterable[Segment]:
            for text, style, control in super().render(*arguments, **keywords):
                yield Segment(text if control else printable(text, lines=True), style, control)

    return PlainConsole(**options)


class PlainFormatter(logging.Formatter):
    """Escapes what log lines would make a terminal obey."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line, and a traceback where `--debug` asks for one."""
        return printable(super().format(record), lines=True)


def print_json(value: object, indent: int | None = None) -> None:
    """Print JSON for programs; where standard output is not UTF-8, in ASCII."""
    from agiqa.core.json_text import json_text

    utf8 = (sys.stdout.encoding or "utf-8").lower().replace("-", "") == "utf8"
    echo(json_text(value, indent=indent, ascii_only=not utf8))


def show(result: Mapping[str, Any], as_json: bool) -> None:
    """Print a result: JSON for programs, aligned lines for people."""
    if as_json:
        print_json(result)
        return
    width = max(map(len, result))
    for key, value in result.items():
        echo(f"{key.replace('_', ' '):<{width}}  {value}")


def print_listing(
    records: Sequence[Record],
    columns: Sequence[str],
    cells: Callable[[Record], Sequence[str]],
    table: Callable[[Sequence[Record]], None],
) -> None:
    """Print a list: by `table` on a terminal, elsewhere with tabs, for cut, sort and awk."""
    if sys.stdout.isatty():
        table(records)
        return
    for row in (columns, *map(cells, records)):
        echo("\t".join(row))


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    caption: str = "",
    bold: Sequence[int] = (),
) -> None:
    """Print a table: the first column to the left, the others to the right; off a terminal too.

    Args:
        columns: headings.
        rows: cells as text, one for each heading.
        title: above the table.
        caption: below it.
        bold: row numbers to stress.
    """
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title) or None, caption=escape(caption) or None, box=SIMPLE_HEAD)
    for index, column in enumerate(columns):
        widest = max([len(column), *(len(row[index]) for row in rows)])
        table.add_column(
            escape(column),
            justify="right" if index else "left",
            no_wrap=not index,
            min_width=min(widest, 40) if not index else None,
        )
    for number, row in enumerate(rows):
        table.add_row(*map(escape, row), style="bold" if number in bold else "")
    out = console()
    if not out.is_terminal:
        out = console(width=160)
    out.print(table)
