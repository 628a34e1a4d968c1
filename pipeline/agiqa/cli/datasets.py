"""`agiqa datasets`: the official data sets, and which of them are here."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agiqa.cli.lazy import Command
from agiqa.cli.options import Settings, cache, list_as_json, settings
from agiqa.cli.output import console, echo, print_json, print_listing
from agiqa.core.errors import AgiqaError

if TYPE_CHECKING:
    from agiqa.core.params import Params
    from agiqa.data.datasets.official import Adapter

FACTS = (  # of the adapter, as they are
    "name", "title", "images", "targets", "scale", "generators", "prompts", "raters", "licence",
    "address", "get",
)  # fmt: skip
COLUMNS = ("name", "images", "targets", "licence", "here", "where", "made by", "raters", "get")


@click.command("datasets", cls=Command)
@cache
@settings
@list_as_json
def command(cache: Path, settings: Settings, as_json: bool) -> None:
    r"""List the data sets whose official downloads `agiqa prepare` reads.

    Images, targets with their published range of the MOS, licence, generators, prompts and raters
    where they are known, and where to get them. Here is
    prepared (CACHE/NAME has its table), in place (labels and images are in sources.NAME.path or
    $AGIQA_DATA/NAME), incomplete (something of it is there) or no.

    \b
    agiqa datasets
    agiqa datasets --json
    """
    from agiqa.data.datasets import OFFICIAL

    params = settings.read()
    data_sets = [_describe(adapter, cache, params) for adapter in OFFICIAL.values()]
    if as_json:
        print_json(data_sets)
        return
    print_listing(data_sets, COLUMNS, _cells, _table)


def _describe(adapter: "Adapter", cache: Path, params: "Params") -> dict[str, Any]:
    from agiqa.data.datasets.origin import known_folder

    facts = adapter.facts
    names = (facts.name, *facts.aliases)
    prepared = next((cache / n for n in names if (cache / n / "images.csv").is_file()), None)
    folder = known_folder(facts.name, params)
    download = folder if folder is not None and folder.exists() else None
    presence, problem = "no", ""
    if download is not None:
        try:
            adapter.find(download)
            presence = "in place"
        except AgiqaError as error:
            presence, problem = "incomplete", str(error)
    return {
        **{name: getattr(facts, name) for name in FACTS},
        "download": facts.hub.repository if facts.hub else None,
        "gigabytes": facts.hub.gigabytes if facts.hub else None,
        "here": "prepared" if prepared else presence,
        "place": str(download) if download else None,
        "prepared": str(prepared) if prepared else None,
        "problem": problem,
    }


def _cells(data_set: dict[str, Any]) -> list[str]:
    """The data set's row, by COLUMNS."""
    ranges = [f"{name} {low:g}…{high:g}" for name, (low, high) in data_set["targets"].items()]
    path = data_set["prepared"] or data_set["place"] or ""
    get = f"--download ({data_set['gigabytes']:g} GB)" if data_set["download"] else "by hand"
    name, licence, presence = (data_set[key] for key in ("name", "licence", "here"))
    images = f"{data_set['images']:,}" if data_set["images"] else "unknown"
    made_by = f"{data_set['generators']} generators" if data_set["generators"] else "cameras"
    made_by += f", {data_set['prompts']:,} prompts" if data_set["prompts"] else ""
    origin = [made_by, data_set["raters"], f"{data_set['address']}, {get}"]
    return [name, images, ", ".join(ranges), licence, presence, path, *origin]


def _table(data_sets: Sequence[dict[str, Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("name", no_wrap=True)
    table.add_column("images", justify="right", no_wrap=True)
    table.add_column("targets and MOS", no_wrap=True)
    table.add_column("licence", max_width=16)
    table.add_column("here", overflow="fold")
    for data_set in data_sets:
        name, images, targets, licence, presence, path, *_ = _cells(data_set)
        where_text = f"{presence}: {path}" if path else presence
        table.add_row(name, images, targets.replace(", ", "\n"), licence, where_text)
        table.add_section()
    console().print(table)
    for data_set in data_sets:  # below the table, so that an address stays in one piece
        *_, made_by, raters, address = _cells(data_set)
        echo(f"{data_set['name']:<12}  {made_by}; raters a score: {raters}; {address}")
        if data_set["here"] == "incomplete":
            echo(f"{'':<12}  {data_set['problem']}")
