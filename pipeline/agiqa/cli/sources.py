"""Which data set a name means, and where it is: for `agiqa prepare` and `agiqa datasets`."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import click

from agiqa.core.errors import AgiqaError
from agiqa.core.params import Params, Source

OFFICIAL = ("agiqa-3k", "aigiqa-20k", "aigciqa2023", "koniq-10k", "spaq")
KINDS = (*OFFICIAL, "csv", "folder", "demo")
TABLES = (".csv", ".tsv")

# What else a data set is called in papers and downloads: the name that it has here.
ALIASES = {
    "aigcqa-20k": "aigiqa-20k",
    "aigciqa-20k": "aigiqa-20k",
    "aigcqa-30k-image": "aigiqa-20k",
    "agiqa3k": "agiqa-3k",
    "aigciqa-2023": "aigciqa2023",
    "koniq10k": "koniq-10k",
}


def canonical(name: str) -> str:
    """The data set's name here, for whatever it is called; other names are as they were."""
    lower = name.lower()
    return ALIASES.get(lower, lower if lower in KINDS else name)


def find_source(
    name: str, path: Path | None, kind: str | None, columns: dict[str, Any], params: Params
) -> Source:
    """The source from the settings, with the command line's options on top.

    Raises:
        AgiqaError: an unknown data set or kind, or nothing says where it is.
        click.UsageError: a CSV's option for another kind.
    """
    given: dict[str, Any] = {key: value for key, value in columns.items() if value}
    source = dataclasses.replace(params.sources.get(name, Source()), **given)
    where = str(path) if path else source.path
    chosen = kind or canonical(source.kind) or (canonical(name) if canonical(name) in KINDS else "")
    if not chosen and where:
        chosen = "csv" if where.lower().endswith(TABLES) else "folder"
        if chosen == "folder" and Path(where).expanduser().is_file():
            raise AgiqaError(
                f"{where}: expected a folder of images, or a table whose name ends in "
                f"{' or '.join(TABLES)}: save it as one (--kind csv reads any as CSV)"
            )
    if not chosen:
        raise AgiqaError(
            f"Unknown data set '{name}': give --from with a CSV or a folder, or add it to "
            f"'sources' in params.yaml. Built in: {', '.join(KINDS)}."
        )
    if chosen not in KINDS:
        raise AgiqaError(
            f"sources.{name}.kind is '{chosen}' in the settings; expected one of "
            f"{', '.join(KINDS)}."
        )
    if not where and chosen != "demo":
        place = _on_shelf(name, chosen)
        if place is None:
            raise AgiqaError(
                f"Where is '{name}'? Give --from, set sources.{name}.path in params.yaml, or set "
                "AGIQA_DATA to the folder that holds your data sets."
            )
        where = str(place)
    if path and chosen == "demo":
        raise click.UsageError(
            f"--from: '{name}' is made by agiqa itself: give your own data another name, or --kind."
        )
    if given and chosen != "csv":
        option = "--" + next(iter(given)).replace("_columns", "-column").replace("_", "-")
        raise click.UsageError(f"{option} is for a CSV; '{name}' is read as {chosen}.")
    return dataclasses.replace(source, kind=chosen, path=where)


def known_place(name: str, params: Params) -> Path | None:
    """Where the settings or $AGIQA_DATA would have an official data set; None if neither says."""
    path = params.sources.get(name, Source()).path
    return Path(path).expanduser() if path else _on_shelf(name, name)


def _on_shelf(name: str, kind: str) -> Path | None:
    """Its folder in $AGIQA_DATA, by the name given or else by the data set's own."""
    shelf = os.environ.get("AGIQA_DATA")
    if not shelf:
        return None
    places = [Path(shelf).expanduser() / each for each in (name, kind)]
    return next((place for place in places if place.exists()), places[0])
