"""`prepare`: from what the user has to an images table and its splits, under `cache/NAME`.

Every image is decoded and hashed first, and nothing is written if one is bad, unless those are to
be left out. What follows (`extract`, `fit`) reads the folder alone.
"""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agiqa.core.errors import AgiqaError, UsageError
from agiqa.core.params import Params, Source, settings
from agiqa.core.run_folders import data_set_name
from agiqa.data.datasets import OFFICIAL, csv_file, demo, origin
from agiqa.data.datasets import folder as folder_of_images
from agiqa.data.datasets.official import download as fetch
from agiqa.data.datasets.official import prepare_download
from agiqa.data.datasets.table import ImagesTable, Target, write_table
from agiqa.data.leak_audit import NEAR, count_near, with_near
from agiqa.data.splits.files import (
    FOLDER,
    Leak,
    count_leaks,
    make_all_splits,
    shared,
    small_test_sides,
    write_splits,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedDataSet:
    """A data set as `prepare` wrote it."""

    folder: Path  # cache/NAME: images.csv, dataset.json, splits/
    table: ImagesTable = field(repr=False)
    leaks: tuple[Leak, ...] = field(repr=False)  # of each protocol and seed
    absent: Mapping[str, str]  # protocols that it has no splits of, and why
    notes: tuple[str, ...] = ()  # why results on it will say little
    kept_together: str = ""  # what `splits.keep_together: near` found, in words
    turned: str = ""  # score columns of which lower was better

    def summary(self) -> dict[str, Any]:
        """Tell in one line each of the table, its images, its targets and its protocols."""
        frame, targets = self.table.frame, self.table.targets
        lines: dict[str, Any] = {
            "table": str(self.folder / "images.csv"),
            "images": len(frame),
            "skipped": len(self.table.skipped),
            "targets": ", ".join(_with_range(self.table, target) for target in targets) or "none",
        }
        if self.turned:
            lines["turned"] = f"{self.turned}: lower was better, higher is from here on"
        if self.kept_together:
            lines["kept_together"] = self.kept_together
        for protocol in dict.fromkeys(leak.protocol for leak in self.leaks):
            leaks = [leak for leak in self.leaks if leak.protocol == protocol]
            sizes = f"{len(leaks)}x {leaks[0].train}/{leaks[0].val}/{leaks[0].test}"
            lines[f"split_{protocol}"] = f"{sizes}; {shared(leaks, frame)}"
        return lines


def prepare(
    name: str,
    source: Source | Path | str | None = None,
    *,
    cache: Path | str = "cache",
    params: Params | None = None,
    skip_bad: bool = False,
    download: bool = False,
) -> PreparedDataSet:
    """Read a data set and write its images table and splits: `prepare("mine", "labels.csv")`.

    Args:
        name: what it is called from now on; its folder is `cache/NAME`.
        source: a folder or CSV, or a `Source`, which names a CSV's columns; by default what
            `sources` in the settings says of the name, or $AGIQA_DATA/NAME.
        cache: folder of images tables and feature stores.
        params: all settings; by default those of ./params.yaml.
        skip_bad: leave unreadable images out, and images and labels without each other.
        download: fetch an official data set first, unless it is there.

    Raises:
        AgiqaError: unknown or absent data, a bad image, no such column, a name that is taken.
    """
    params, folder = settings(params), _folder(name, Path(cache))
    source = origin.find_source(name, source, params)
    if download:
        _download(name, source)
    reading = origin.Reading(origin.origin_of(source), folder)
    table = _read(name, source, folder, params, skip_bad or params.prepare.skip_bad)
    near = None
    if params.splits.keep_together == "near" and table.targets:
        near = with_near(table, NEAR)
    by_protocol, absent = make_all_splits(near or table, params.splits, source.splits)
    write_table(table, folder, reading.noted)
    reading.done(table)
    for protocol, splits in by_protocol.items():  # imported ones that lie there already stay
        write_splits(splits, folder / FOLDER / f"{protocol}.csv")
    notes = [
        f"{name}: every {target.name} is {target.low:g}: nothing to learn."
        for target in table.targets
        if target.low == target.high
    ]
    if few := small_test_sides(by_protocol, table):
        notes.append(f"{few}.")
    return PreparedDataSet(
        folder,
        table,
        tuple(count_leaks(table, folder)),
        absent,
        tuple(notes),
        kept_together=count_near(near) if near else "",
        turned=", ".join(source.lower_is_better),
    )


def note_what_is_there(
    name: str, source: Source | None, *, cache: Path | str = "cache", params: Params | None = None
) -> None:
    """Write `sources.json`; where the sources are not on this machine, an earlier note stays.

    Raises:
        AgiqaError: they are not here, and there is no note.
    """
    params, folder = settings(params), _folder(name, Path(cache))
    try:
        located = origin.find_source(name, source, params)
        origin.note_sources(origin.origin_of(located), folder, params.prepare.workers)
    except origin.AbsentError as error:
        if not (folder / origin.SOURCES).is_file():
            raise
        log.warning("%s: what it is made from is not here, its table stays: %s", name, error)


def _folder(name: str, cache: Path) -> Path:
    """Give the folder of a data set's name, unless it is no name, or another's but for case.

    On many disks the two would be one folder.
    """
    data_set_name(name, "NAME")
    for folder in cache.iterdir() if cache.is_dir() else ():
        if folder.name != name and folder.name.casefold() == name.casefold():
            raise AgiqaError(
                f"{folder} is a data set already, whose name differs from '{name}' in case alone: "
                "give one of them another name"
            )
    return cache / name


def _with_range(table: ImagesTable, target: Target) -> str:
    """Name the target with its range, and how many scores it has where images have none."""
    scored = int(table.frame[target.name].notna().sum())
    count = "" if scored == len(table.frame) else f" ({scored} of {len(table.frame)} images)"
    return f"{target.name} {target.low:g}…{target.high:g}{count}"


def _download(name: str, source: Source) -> None:
    """Fetch an official data set into the source's folder, unless it is there."""
    if source.kind not in OFFICIAL:
        raise UsageError(
            f"--download is for {', '.join(OFFICIAL)}; '{name}' is read as {source.kind}."
        )
    adapter, folder = OFFICIAL[source.kind], Path(source.path).expanduser()
    try:
        adapter.find(folder)
    except AgiqaError:
        fetch(adapter.facts, folder)


def _read(name: str, source: Source, folder: Path, params: Params, skip_bad: bool) -> ImagesTable:
    """Read the source as its kind asks; the demo is made in `folder`."""
    path, workers = Path(source.path).expanduser(), params.prepare.workers
    if source.kind in OFFICIAL:
        adapter = OFFICIAL[source.kind]
        table = prepare_download(adapter, path, skip_bad=skip_bad, workers=workers)
        return dataclasses.replace(table, name=name)
    if source.kind == "demo":
        return demo.prepare(folder, params.prepare.seed, workers=workers)
    if source.kind == "folder":
        return folder_of_images.prepare(path, name, skip_bad=skip_bad, workers=workers)
    return csv_file.prepare(source, name, skip_bad=skip_bad, workers=workers)
