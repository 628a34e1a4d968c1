"""Arguments and options that several commands share, and how they are checked."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Params, load
from agiqa.core.run_folders import data_set_name
from agiqa.core.urls import is_url, shown

Command = TypeVar("Command", bound=Callable[..., Any])
Items = TypeVar("Items", bound=tuple[Any, ...])

CACHE = Path("cache")
RUNS = Path("runs")
ANY = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


class RunFolder(click.Path):
    """A run's folder; of `hf://user/name[@revision]` the one that it is fetched into."""

    name = "run"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Fetch what is on the hub; a failure is one line."""
        if isinstance(value, str) and value.startswith("hf://"):
            from agiqa.runs.publish import fetch_run

            return fetch_run(value)
        return super().convert(value, param, ctx)


class OutPath(click.Path):
    """A file or a folder to write, refused before any work where it cannot be written."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Give the path; AgiqaError where nothing can be written there."""
        from agiqa.core.whole_files import require_writable, require_writable_folder

        if str(value) == "-":
            self.fail("a dash is no name here: leave the option out to print.", param, ctx)
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        (require_writable if self.file_okay else require_writable_folder)(path)
        return path


class CacheFolder(click.Path):
    """A folder of tables and stores; where `url` is set, a URL will do, too, and stays as it is."""

    def __init__(self, url: bool) -> None:
        super().__init__(path_type=Path, file_okay=False)
        self.url = url

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Give the path or the URL."""
        if not is_url(value):
            return super().convert(value, param, ctx)
        if not self.url:
            self.fail(
                f"expected a folder on this machine, found the URL {shown(value)}. fit, evaluate "
                "and report read from URLs; extract shares vectors through AGIQA_STORE.",
                param,
                ctx,
            )
        return value


class PackPath(click.Path):
    """A pack's path; of a URL that of a checked copy."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Fetch what is at a URL; a failure is one line."""
        if not is_url(value):
            return super().convert(value, param, ctx)
        from agiqa.store import local_copy

        return local_copy(value)


OUT_FILE = OutPath(path_type=Path, dir_okay=False)
OUT_FOLDER = OutPath(path_type=Path, file_okay=False)
PACK = PackPath(path_type=Path)
RUN = RunFolder(path_type=Path, file_okay=False)
RUN_OR_IMAGE = RunFolder(path_type=Path)


@dataclass(frozen=True)
class Settings:
    """What `--params` and `--set` say."""

    file: Path | None
    overrides: tuple[str, ...]

    def read(self, *extra: str) -> Params:
        """Read the settings, with `more` overrides as `--set` takes them."""
        return load(self.file, (*self.overrides, *extra))


def settings(function: Command) -> Command:
    """Add `--params` and `--set`, which the command takes as `settings`."""
    file = click.option(
        "--params",
        "params_file",
        type=ANY,
        is_eager=True,  # known before --set, whose callback takes it
        help="Settings file. Default: params.yaml here, else built-in values.",
    )
    overrides = click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        callback=lambda ctx, _, given: Settings(ctx.params.pop("params_file"), given),
        help="Override a setting, such as fit.lr=0.001. Repeatable.",
    )
    return file(overrides(function))


def engine(function: Command) -> Command:
    """Add `--engine` and its options, which the command takes as `engine`."""
    kind = click.option(
        "--engine",
        type=click.Choice(["ray"]),
        callback=_make_engine,
        help="Compute on a Ray cluster instead of in this process: pip install 'agiqa[ray]'.",
    )
    address = click.option(
        "--ray-address",
        metavar="ADDRESS",
        is_eager=True,
        help="auto, or HOST:6379 of a cluster that this machine is in. Default: $RAY_ADDRESS, one "
        "that runs here, or a new one of this machine.",
    )
    actors = click.option(
        "--actors",
        type=click.IntRange(min=1),
        is_eager=True,
        help="Processes with the model. Default: one for each GPU.",
    )
    return kind(address(actors(function)))


def _make_engine(context: click.Context, _: click.Parameter, name: str | None) -> Any:
    address, actors = context.params.pop("ray_address"), context.params.pop("actors")
    if name is None:
        if address or actors:
            raise click.UsageError("--ray-address and --actors go with --engine ray.")
        return None
    from agiqa.stage1.ray_cluster import RayCluster

    return RayCluster(address or "", actors or 0)


def different(context: click.Context, parameter: click.Parameter, values: Items) -> Items:
    """Refuse one thing named twice; a callback of what may be given several times."""
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


def number(
    name: str, default: float, help: str, least: int = 0, most: int | None = None, **more: Any
) -> Callable[[Command], Command]:
    """Make an option that takes a whole number, its default shown; `more` is click's own."""
    kind = click.IntRange(least, most)
    return click.option(name, type=kind, default=default, show_default=True, help=help, **more)


def out_file(help: str) -> Callable[[Command], Command]:
    """Make the option `-o FILE`."""
    return click.option("-o", "--out", type=OUT_FILE, help=help)


runs_argument = partial(
    click.argument, "runs", nargs=-1, required=True, metavar="RUN...", callback=different
)
run_argument = click.argument("run", type=FOLDER)
run_option = partial(click.option, "--run", type=RUN, metavar="FOLDER|hf://USER/NAME")
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
list_as_json = click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
cache = click.option(
    "--cache",
    metavar="DIRECTORY",
    type=CacheFolder(url=False),
    default=str(CACHE),
    show_default=True,
    help="Folder of images tables and feature stores.",
)
cache_or_url = click.option(
    "--cache",
    metavar="DIRECTORY|URL",
    type=CacheFolder(url=True),
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
image_prompt = click.option(
    "--image-prompt",
    metavar="TEXT",
    help="The text that IMAGES were generated from, for runs whose prompt set asks for it.",
)
remote_code = click.option(
    "--remote-code",
    default="",
    metavar="MODEL@DIGEST",
    help="Let the run's model run just that Python of its own, which the refusal names.",
)
replace_run = click.option(
    "--replace",
    is_flag=True,
    help="Overwrite a run in that folder, and all that was made from it: results, explanations, "
    "report.",
)
