"""Options that several commands share, and how their results are printed."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from agiqa.params import Params, load

Command = TypeVar("Command", bound=Callable[..., Any])

CACHE = Path("cache")
RUNS = Path("runs")


def settings(function: Command) -> Command:
    """`--params` and `--set`; read them with `read_settings`."""
    for option in (
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Override a setting, such as fit.lr=0.001. Repeatable.",
        ),
        click.option(
            "--params",
            "params_file",
            type=click.Path(path_type=Path),
            help="Settings file. Default: params.yaml here, else built-in values.",
        ),
    ):
        function = option(function)
    return function


cache = click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    default=CACHE,
    show_default=True,
    help="Folder of images tables and feature stores.",
)

as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def read_settings(params_file: Path | None, overrides: tuple[str, ...]) -> Params:
    """The settings of a command."""
    return load(params_file, overrides)


def show(result: Mapping[str, Any], as_json: bool) -> None:
    """Print a result: JSON for programs, aligned lines for people."""
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False, default=str))
        return
    width = max(map(len, result))
    for key, value in result.items():
        click.echo(f"{key.replace('_', ' '):<{width}}  {value}")
