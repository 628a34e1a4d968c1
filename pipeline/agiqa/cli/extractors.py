"""`agiqa extractors`: models known to serve as the LMM."""

import itertools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from agiqa.cli.lazy import Command
from agiqa.cli.lines import console, echo
from agiqa.cli.options import print_json

if TYPE_CHECKING:
    from agiqa.stage1.extractors.known_models import Known

COLUMNS = ("model", "kind", "parameters", "licence", "width", "tokens", "note")


@click.command("extractors", cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def command(as_json: bool) -> None:
    r"""List models for semantic.model: size, licence, width of a vector, visual tokens an image.

    Tokens are those of an image of 1024 x 1024 by the model's own processor, up to where a smaller
    image has fewer; time grows with them and with the parameters. Needs: packages to install
    beside agiqa, or what else to know. Other models of these kinds do as well, by hub id or folder.

    \b
    agiqa extractors
    agiqa extract mine --set semantic.model=llava-hf/llava-1.5-7b-hf --set semantic.name=llava
    """
    from agiqa.stage1.extractors.known_models import KNOWN_MODELS

    if as_json:
        print_json([vars(each) for each in KNOWN_MODELS])
    elif sys.stdout.isatty():
        _table(KNOWN_MODELS)
    else:  # for cut, sort and awk
        for row in (COLUMNS, *map(_cells, KNOWN_MODELS)):
            echo("\t".join(row))


def _cells(each: "Known") -> list[str]:
    """The model's row, by COLUMNS."""
    size, tokens = f"{each.billions:.2f} B", f"{'up to ' if each.dynamic else ''}{each.tokens}"
    return [each.model, each.kind, size, each.licence, str(each.width), tokens, each.note]


def _table(models: Sequence["Known"]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=0)
    table.add_column("model", overflow="fold")
    table.add_column("params", justify="right", no_wrap=True)
    table.add_column("licence", max_width=13)
    table.add_column("width", justify="right", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("note", max_width=12)
    for kind, group in itertools.groupby(models, key=lambda each: each.kind):
        table.add_row(f"[bold]{kind}[/]")
        for each in group:
            model, _, *rest = _cells(each)
            table.add_row(model, *rest)
        table.add_section()
    console().print(table)
