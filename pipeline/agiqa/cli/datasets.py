"""`agiqa datasets`: the official data sets, and which of them are here."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agiqa.cli.lazy import Command
from agiqa.cli.lines import console, echo
from agiqa.cli.options import cache, print_json, read_settings, settings
from agiqa.core.errors import AgiqaError
from agiqa.data.sources import ALIASES, known_folder

if TYPE_CHECKING:
    from agiqa.core.params import Params
    from agiqa.data.datasets import Adapter

COLUMNS = ("name", "images", "targets", "licence", "here", "where", "get")


@click.command("datasets", cls=Command)
@cache
@settings
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def command(
    cache: Path, params_file: Path | None, overrides: tuple[str, ...], as_json: bool
) -> None:
    r"""List the data sets whose official downloads `agiqa prepare` reads.

    Images, targets with their published range of the MOS, licence, and where to get them. Here is
    prepared (CACHE/NAME has its table), in place (labels and images are in sources.NAME.path or
    $AGIQA_DATA/NAME), incomplete (something of it is there) or no.

    \b
    agiqa datasets
    agiqa datasets --json
    """
    from agiqa.data.datasets import OFFICIAL

    params = read_settings(params_file, overrides)
    found = [_describe(adapter, cache, params) for adapter in OFFICIAL.values()]
    if as_json:
        print_json(found)
    elif sys.stdout.isatty():
        _table(found)
    else:  # for cut, sort and awk
        for row in (COLUMNS, *map(_cells, found)):
            echo("\t".join(row))


def _describe(adapter: "Adapter", cache: Path, params: "Params") -> dict[str, Any]:
    facts = adapter.FACTS
    names = (facts.name, *(alias for alias, name in ALIASES.items() if name == facts.name))
    prepared = next((cache / n for n in names if (cache / n / "images.csv").is_file()), None)
    place, problem = known_folder(facts.name, params), ""
    here = "prepared" if prepared else "no"
    if place is not None and place.exists():
        try:
            adapter.find(place)
            here = "prepared" if prepared else "in place"
        except AgiqaError as error:
            here, problem = "prepared" if prepared else "incomplete", str(error)
    return {
        "name": facts.name,
        "title": facts.title,
        "images": facts.images,
        "targets": dict(facts.targets),
        "scale": facts.scale,
        "licence": facts.licence,
        "address": facts.address,
        "get": facts.get,
        "download": facts.hub.repository if facts.hub else None,
        "gigabytes": facts.hub.gigabytes if facts.hub else None,
        "here": here,
        "place": str(place) if place is not None and place.exists() else None,
        "prepared": str(prepared) if prepared else None,
        "problem": problem,
    }


def _cells(each: dict[str, Any]) -> list[str]:
    """The data set's row, by COLUMNS."""
    ranges = [f"{name} {low:g}…{high:g}" for name, (low, high) in each["targets"].items()]
    where = each["prepared"] or each["place"] or ""
    get = f"--download ({each['gigabytes']:g} GB)" if each["download"] else "by hand"
    return [each["name"], f"{each['images']:,}", ", ".join(ranges), each["licence"], each["here"],
            where, f"{each['address']}, {get}"]  # fmt: skip


def _table(found: list[dict[str, Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("name", no_wrap=True)
    table.add_column("images", justify="right", no_wrap=True)
    table.add_column("targets and MOS", no_wrap=True)
    table.add_column("licence", max_width=16)
    table.add_column("here", overflow="fold")
    for each in found:
        name, images, targets, licence, here, where, _ = _cells(each)
        place = f"{here}: {where}" if where else here
        table.add_row(name, images, targets.replace(", ", "\n"), licence, place)
        table.add_section()
    console().print(table)
    for each in found:  # below the table, so that an address stays in one piece
        echo(f"{each['name']:<11}  {_cells(each)[-1]}")
        if each["here"] == "incomplete":
            echo(f"{'':<11}  {each['problem']}")
