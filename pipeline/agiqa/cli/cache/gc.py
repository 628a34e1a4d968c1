"""`agiqa cache gc`: free what nothing uses."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agiqa.cli.cache.texts import count_text, size_text
from agiqa.cli.lazy import Command
from agiqa.cli.options import CACHE, FOLDER, RUNS, list_as_json
from agiqa.cli.output import echo, print_json
from agiqa.core.errors import AgiqaError

if TYPE_CHECKING:
    from agiqa.store.upkeep.clearing import Orphan, Plan

UNITS = {"h": 3600.0, "d": 86400.0, "w": 604800.0}


def _seconds(_ctx: click.Context, _param: click.Parameter, value: str) -> float:
    """A time such as 30d, in seconds."""
    match = re.fullmatch(r"(\d+)([hdw])", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no age such as 12h, 30d or 8w")
    return int(match[1]) * UNITS[match[2]]


@click.command("gc", cls=Command)
@click.option("--dry-run", is_flag=True, help="List what would go, with bytes; remove nothing.")
@click.option("--yes", is_flag=True, help="Remove it without asking.")
@click.option(
    "--unused",
    is_flag=True,
    help="Shelves, too, that no pack in CACHE and no run in RUNS uses. Their vectors are lost, and "
    "cost what they cost to compute again.",
)
@click.option(
    "--older-than",
    callback=_seconds,
    default="30d",
    show_default=True,
    metavar="AGE",
    help="With --unused: only shelves that nobody wrote to for so long: 12h, 30d, 8w.",
)
@click.option(
    "--cache",
    "caches",
    type=FOLDER,
    multiple=True,
    help="Folder of packs, whose shelves stay; repeatable, for every project.  [default: cache]",
)
@click.option(
    "--runs",
    type=FOLDER,
    multiple=True,
    help="Folder of runs, whose shelves stay; repeatable.  [default: runs]",
)
@list_as_json
def command(
    dry_run: bool,
    yes: bool,
    unused: bool,
    older_than: float,
    caches: tuple[Path, ...],
    runs: tuple[Path, ...],
    as_json: bool,
) -> None:
    r"""Free the space of what holds nothing: leftovers of stopped processes, rows kept twice.

    Vectors stay, unless --unused is given: then whole shelves go that nothing in sight uses. The
    ledger is shared by all projects of a user, and only those are in sight whose folders are named.
    What would go is listed first, and removed after a yes. What is being written is passed over.

    \b
    agiqa cache gc --dry-run
    agiqa cache gc --yes
    agiqa cache gc --unused --older-than 8w --cache cache --cache ../other/cache \
        --runs runs --runs ../other/runs
    """
    from agiqa.store import default_root
    from agiqa.store.upkeep.clearing import carry_out, plan

    run_folders = runs or ((RUNS,) if RUNS.is_dir() else ())  # nothing may have been fitted yet
    arguments = (default_root(), caches or (CACHE,), run_folders, unused, older_than)
    planned = plan(*arguments)
    orphans = planned.orphans
    if not as_json:
        _print(planned)
    elif dry_run or not orphans:
        print_json(_tree(orphans, planned.kept))
    if not orphans or dry_run:
        return
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise AgiqaError("expected --yes, or a terminal to ask at; nothing was removed")
        click.confirm("Remove all this?", abort=True)
    removed, refused = carry_out(planned, plan(*arguments))
    if as_json:
        print_json(_tree(removed, refused))
    else:
        for line in refused:
            echo(f"kept: {line}")
        echo(f"removed {_sum(removed)}")


def _print(planned: "Plan") -> None:
    orphans = planned.orphans
    width = max((len(size_text(orphan.size)) for orphan in orphans), default=0)
    for orphan in orphans:
        echo(f"{size_text(orphan.size):>{width}}  {orphan.path}: {orphan.why}")
    for line in planned.kept:
        echo(f"kept: {line}")
    echo(f"can go: {_sum(orphans)}" if orphans else "nothing can go")


def _sum(orphans: "list[Orphan]") -> str:
    size = sum(orphan.size for orphan in orphans)
    return f"{count_text(len(orphans), 'item')}, {size_text(size)} ({size:,} bytes)"


def _tree(orphans: "list[Orphan]", kept: list[str]) -> dict[str, Any]:
    items = [{"path": str(item.path), "why": item.why, "bytes": item.size} for item in orphans]
    return {"items": items, "bytes": sum(item.size for item in orphans), "kept": kept}
