"""What a data set is made from, and whether its table is as old as that.

Labels, split files and images may be edited after `prepare`. `sources.json` says by their bytes
what there is now: `dvc repro` writes it first, and runs `prepare` again where it changed; it names
no folder of this machine, so it is the same wherever the same files are. `root.json` says what the
table was read from, and where; `extract`, `fit` and `evaluate` refuse a table that is older.
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agiqa.core.errors import AgiqaError, printable, some
from agiqa.core.json_text import json_text
from agiqa.core.params import Source
from agiqa.core.trees import read_json
from agiqa.data.datasets.build import as_spelled
from agiqa.data.datasets.csv_file import image_paths
from agiqa.data.datasets.file_digests import FileDigests
from agiqa.data.datasets.folder import find_images
from agiqa.data.datasets.labels import require_columns
from agiqa.data.datasets.table import ROOT_JSON, ImagesTable, write_whole
from agiqa.data.datasets.text_table import read_text_csv

SOURCES = "sources.json"


@dataclass(frozen=True)
class Origin:
    """Where the labels, the splits of other people and the images of a data set are."""

    kind: str  # as in the settings: csv, folder, demo, or an official data set's name
    labels: tuple[Path, ...] = ()
    splits: Mapping[str, Path] = field(default_factory=dict)  # by protocol
    root: Path | None = None  # of the images; None: the project makes them itself
    listed: tuple[Path, str] | None = None  # csv: the CSV and its column, which list the images

    def images(self) -> list[str]:
        """The images there should be, relative to the root.

        Raises:
            AgiqaError: the CSV cannot be read, or the folder holds none.
        """
        if self.root is None:
            return []
        if self.listed is None:
            return [path.relative_to(self.root).as_posix() for path in find_images(self.root)]
        csv, column = self.listed
        labels = read_text_csv(csv)
        require_columns(labels, [column], csv)
        paths = image_paths(labels[column], self.root, csv)
        return [as_spelled(self.root, path, str(csv)) for path in paths]


def origin_of(source: Source) -> Origin:
    """The origin of what `prepare` would read.

    Raises:
        AgiqaError: a part of an official download is absent.
    """
    from agiqa.data.datasets import OFFICIAL

    path, kind = Path(source.path).expanduser(), source.kind
    splits = {protocol: Path(file).expanduser() for protocol, file in source.splits.items()}
    if kind in OFFICIAL:
        labels, root = OFFICIAL[kind].files(path)
        return Origin(kind, tuple(labels), splits, root)
    if kind == "csv":
        root = Path(source.root) if source.root else path.parent
        return Origin(kind, (path,), splits, root, (path, source.image_column))
    return Origin(kind, splits=splits, root=path if kind == "folder" else None)


def note_sources(origin: Origin, folder: Path, workers: int) -> None:
    """Write `sources.json` into the data set's folder, if it is another than what is there.

    Raises:
        AgiqaError: labels or images are not here, or a split file is not.
    """
    digests = FileDigests(folder)
    files = [*origin.labels, *origin.splits.values()]
    found = dict(zip(files, digests.sha256(files), strict=True))
    if absent := [file for file, digest in found.items() if digest is None]:
        raise AgiqaError(f"{absent[0]}: expected a file of labels or splits, found none")
    root = origin.root or folder
    names = origin.images()
    paths = [root / name for name in names]
    images = digests.sha256(paths, workers)
    if names and not any(images):
        raise AgiqaError(
            f"{root}: expected {len(names):,} images, found none of them, such as "
            f"{printable(names[0])}"
        )
    listing = "".join(
        f"{digest or 'absent'} {name}\n" for name, digest in sorted(zip(names, images, strict=True))
    )
    record = {
        "kind": origin.kind,
        "labels": {file.name: found[file] for file in origin.labels},
        "splits": {protocol: found[file] for protocol, file in origin.splits.items()},
        "images": len(names),
        "images_sha256": hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest(),
    }
    text = (json_text(record, indent=2) + "\n").encode()
    path = folder / SOURCES
    if not path.is_file() or path.read_bytes() != text:
        write_whole(path, text)
    digests.save([*files, *paths])


class Reading:
    """The sources of a table while it is made: looked at before they are read."""

    def __init__(self, origin: Origin, folder: Path) -> None:
        self._origin, self._folder = origin, folder
        self._since = time.time_ns()
        self._digests = FileDigests(folder)
        self._files = [*origin.labels, *origin.splits.values()]
        found = dict(zip(self._files, self._digests.sha256(self._files), strict=True))
        earlier = noted_sources(folder).get("splits", {})
        self.noted: dict[str, Any] = {
            "kind": origin.kind,
            "labels": {str(file.absolute()): found[file] for file in origin.labels},
            "splits": {
                **earlier,
                **{name: [str(file.absolute()), found[file]]
                   for name, file in origin.splits.items()},
            },
        }  # fmt: skip

    def done(self, table: ImagesTable) -> None:
        """Remember the images that were hashed for the table."""
        paths = table.paths()
        self._digests.remember(paths, list(table.frame["image_id"]), self._since)
        self._digests.save([*self._files, *paths])


def noted_sources(folder: Path) -> dict[str, Any]:
    """What `root.json` says that the table was read from; empty where it does not.

    Raises:
        AgiqaError: it is damaged.
    """
    path = folder / ROOT_JSON
    if not path.is_file():
        return {}
    try:
        sources = read_json(path).get("sources", {})
        files = [*sources.get("labels", {}).items(), *sources.get("splits", {}).values()]
        if not all(isinstance(text, str) for file, digest in files for text in (file, digest)):
            raise ValueError("a file or digest that is no text")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise AgiqaError(f"{path}: damaged ({error}): run `agiqa prepare` again") from error
    return dict(sources)


def note_imported(folder: Path, protocol: str, file: Path) -> None:
    """Add to `root.json` which file a protocol was imported from."""
    path = folder / ROOT_JSON
    if not path.is_file():
        return
    here = read_json(path)
    sources = here.setdefault("sources", {"kind": "", "labels": {}, "splits": {}})
    digest = FileDigests(folder).sha256([file])[0]
    sources.setdefault("splits", {})[protocol] = [str(file.absolute()), digest]
    write_whole(path, json_text(here, ascii_only=True).encode())


def require_fresh(
    table: ImagesTable, folder: Path, protocol: str = "", images: bool = True
) -> None:
    """Refuse a table that is older than its labels, its images or the splits of `protocol`.

    Without `images` these are not looked at: whoever opens each of them will see. Sizes and times
    are compared, then the bytes where those differ. What is not on this machine (any more) is not
    compared: the table stands for itself.

    Raises:
        AgiqaError: names what has changed.
    """
    noted = noted_sources(folder)
    if not noted:
        return
    digests = FileDigests(folder)
    files = dict(noted.get("labels", {}))
    if protocol in noted.get("splits", {}):
        file, digest = noted["splits"][protocol]
        files[file] = digest
    now = digests.sha256([Path(file) for file in files])
    changed = [
        Path(file).name
        for (file, then), digest in zip(files.items(), now, strict=True)
        if digest not in (None, then)
    ]
    names = list(table.frame["path"])
    if images and table.root is not None and table.root.is_dir():
        then = list(table.frame["image_id"])
        changed += [
            printable(name)
            for name, old, new in zip(names, then, digests.sha256(table.paths()), strict=True)
            if new not in (None, old)
        ]
        if noted.get("kind") == "folder":
            known = {*names, *(bad.path for bad in table.skipped)}
            there = [p.relative_to(table.root).as_posix() for p in find_images(table.root)]
            changed += [printable(name) for name in there if printable(name) not in known]
    if changed:
        has = "has" if len(changed) == 1 else "have"
        raise AgiqaError(
            f"{folder}: the images table is older than what it was made from: {some(changed, 3)} "
            f"{has} changed since: run `agiqa prepare {table.name}` again"
        )
