"""All splits of a data set, as `prepare` makes them: our protocols, and the files it imports."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from agiqa.datasets.table import ImagesTable
from agiqa.errors import AgiqaError
from agiqa.params import Splits
from agiqa.splits.files import FOLDER, protocols_there, read_protocol, write_splits
from agiqa.splits.importing import import_splits
from agiqa.splits.leaks import Leak, leaks, write_leaks
from agiqa.splits.official import has_official
from agiqa.splits.protocols import PROTOCOLS, make_splits

LEAKS = "leaks.json"


@dataclass(frozen=True)
class Prepared:
    """Splits by protocol, and why a protocol has none."""

    splits: dict[str, pd.DataFrame]
    absent: dict[str, str]


def make_all_splits(table: ImagesTable, settings: Splits, files: Mapping[str, str]) -> Prepared:
    """Every protocol that the data set allows, and every file of other people's splits.

    Args:
        table: the data set; without a target it has no splits.
        settings: count, first seed and ratio.
        files: by protocol name, CSVs of names and sides.

    Raises:
        AgiqaError: a file that does not fit the data set.
    """
    made: dict[str, pd.DataFrame] = {}
    absent: dict[str, str] = {}
    if not table.targets:
        return Prepared(made, absent)
    for protocol in PROTOCOLS:
        if protocol == "official" and not has_official(table):
            continue
        try:
            made[protocol] = make_splits(
                table,
                protocol,
                count=settings.count,
                seed=settings.seed,
                ratio=(*settings.ratio,),  # type: ignore[arg-type]
            )
        except AgiqaError as error:
            absent[protocol] = str(error)
    for protocol, file in files.items():
        made[protocol] = import_splits(Path(file).expanduser(), table, protocol).splits
    return Prepared(made, absent)


def write_all_splits(prepared: Prepared, table: ImagesTable, folder: Path) -> list[Leak]:
    """Write them under the data set's folder, and count the leaks of all that lie there.

    Imported protocols that lie there already stay; one that the images have outgrown is left as it
    is and not counted (`fit` refuses it).
    """
    for protocol, splits in prepared.splits.items():
        write_splits(splits, folder / FOLDER / f"{protocol}.csv")
    return count_leaks(table, folder)


def count_leaks(table: ImagesTable, folder: Path) -> list[Leak]:
    """Count the leaks of every usable split file in the data set's folder, and write them there."""
    found: list[Leak] = []
    there = protocols_there(folder)
    for protocol in [
        *(p for p in PROTOCOLS if p in there),
        *(p for p in there if p not in PROTOCOLS),
    ]:
        try:
            found += leaks(read_protocol(folder, table, protocol), table)
        except AgiqaError:
            continue
    if found:
        write_leaks(found, folder / FOLDER / LEAKS)
    return found
