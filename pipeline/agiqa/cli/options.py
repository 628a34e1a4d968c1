"""Options that several commands share, and how their results are printed."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from agiqa.cli.lines import echo
from agiqa.core.errors import AgiqaError
from agiqa.core.names import data_set_name
from agiqa.core.params import Params, load
from agiqa.core.urls import is_url, shown

Command = TypeVar("Command", bound=Callable[..., Any])
Items = TypeVar("Items", bound=tuple[Any, ...])

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


def _folder_here(context: click.Context, option: click.Parameter, value: str) -> Path:
    """A folder to write to."""
    if is_url(value):
        raise click.BadParameter(
            f"expected a folder on this machine, found the URL {shown(value)}. fit, evaluate and "
            "report read from URLs; extract shares vectors through AGIQA_STORE.",
            context,
            option,
        )
    return _folder(context, option, value)


def _folder_or_url(context: click.Context, option: click.Parameter, value: str) -> Path | str:
    """A folder to read from, a URL as it is."""
    return value if is_url(value) else _folder(context, option, value)


def _folder(context: click.Context, option: click.Parameter, value: str) -> Path:
    click.Path(file_okay=False).convert(value, option, context)
    return Path(value)


def pack_at_hand(context: click.Context, option: click.Parameter, value: str) -> Path:
    """Callback of an argument that names a pack: its path, of a URL that of a checked copy."""
    if not is_url(value):
        return Path(value)
    from agiqa.store import at_hand, read_pack

    return at_hand(value, read_pack)


cache = click.option(
    "--cache",
    metavar="DIRECTORY",
    callback=_folder_here,
    default=str(CACHE),
    show_default=True,
    help="Folder of images tables and feature stores.",
)

cache_or_url = click.option(
    "--cache",
    metavar="DIRECTORY|URL",
    callback=_folder_or_url,
    default=str(CACHE),
    show_default=True,
    help="Folder of images tables and feature stores, or its URL, such as s3://bucket/cache.",
)

extractor = click.option(
    "--extractor",
    default="",
    metavar="NAME",
    help="An entry of `extractors` in the settings, instead of section semantic.",
)

remote_code = click.option(
    "--remote-code",
    default="",
    metavar="MODEL@DIGEST",
    help="Let the run's model run just that Python of its own, which the refusal names.",
)

as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def different(context: click.Context, parameter: click.Parameter, values: Items) -> Items:
    """Callback of what may be given several times: refuse one thing named twice."""
    names = [os.path.normpath(value) for value in values]
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise click.BadParameter(f"'{twice[0]}' is given twice: give it once.", context, parameter)
    return values


def plain_name(name: str, option: str) -> None:
    """Refuse a name that no folder, stage or setting can have, as an error of usage."""
    try:
        data_set_name(name, option)
    except AgiqaError as error:
        raise click.UsageError(str(error)) from error


def read_settings(params_file: Path | None, overrides: tuple[str, ...]) -> Params:
    """The settings of a command."""
    return load(params_file, overrides)


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
