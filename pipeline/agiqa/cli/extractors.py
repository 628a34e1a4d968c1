"""`agiqa extractors`: models known to serve as the LMM."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import list_as_json
from agiqa.cli.output import console, print_json, print_listing

if TYPE_CHECKING:
    from agiqa.stage1.extractors.known_models import Known

COLUMNS = ("model", "kind", "parameters", "licence", "width", "tokens", "note")


@click.command("extractors", cls=Command)
@list_as_json
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
        print_json([vars(model) for model in KNOWN_MODELS])
        return
    print_listing(KNOWN_MODELS, COLUMNS, _cells, _table)


def _cells(model: "Known") -> list[str]:
    """Give the model's row, by COLUMNS."""
    size, tokens = f"{model.billions:.2f} B", f"{'up to ' if model.dynamic else ''}{model.tokens}"
    return [model.model, model.kind, size, model.licence, str(model.width), tokens, model.note]


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
    for kind, group in itertools.groupby(models, key=lambda known: known.kind):
        table.add_row(f"[bold]{kind}[/]")
        for known in group:
            model, _, *rest = _cells(known)
            table.add_row(model, *rest)
        table.add_section()
    console().print(table)
