"""What commands print: names out of runs, packs, tables and images move no cursor.

Every line goes through `echo`, every table through a `console` (a test holds both), log lines
through `PlainFormatter`. ranking.py alone, which draws pictures, escapes its names itself.
"""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from agiqa.core.errors import printable

if TYPE_CHECKING:
    from rich.console import Console


def echo(text: object = "", err: bool = False, nl: bool = True, bold: str = "") -> None:
    """Print text, with what a terminal would obey escaped; `bold` is stressed before it."""
    plain = printable(text, lines=True)
    if bold:
        plain = click.style(printable(bold, lines=True), bold=True) + plain
    click.echo(plain, err=err, nl=nl)


def console(**options: Any) -> "Console":
    """A rich console; `options` are its own."""
    from rich.console import Console
    from rich.segment import Segment

    class PlainConsole(Console):
        """Its own control sequences pass, those in the text do not."""

        def render(self, *given: Any, **named: Any) -> Iterable[Segment]:
            for text, style, control in super().render(*given, **named):
                yield Segment(text if control else printable(text, lines=True), style, control)

    return PlainConsole(**options)


class PlainFormatter(logging.Formatter):
    """Log lines likewise."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and a traceback where `--debug` asks for one."""
        return printable(super().format(record), lines=True)
