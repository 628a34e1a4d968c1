"""Tables on a terminal, shared by the commands that print one."""

from collections.abc import Sequence

from agiqa.cli.lines import console


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
    for place, column in enumerate(columns):
        widest = max([len(column), *(len(row[place]) for row in rows)])
        table.add_column(
            escape(column),
            justify="right" if place else "left",
            no_wrap=not place,
            min_width=min(widest, 40) if not place else None,
        )
    for number, row in enumerate(rows):
        table.add_row(*map(escape, row), style="bold" if number in bold else "")
    out = console()
    if not out.is_terminal:
        out = console(width=160)
    out.print(table)
