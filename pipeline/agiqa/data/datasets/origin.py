"""What a data set is made from, and whether its table is as old as that.

Labels, split files and images may be edited after `prepare`. `sources.json` says by their bytes
what there is now: `dvc repro` writes it first, and runs `prepare` again where it changed; it names
no folder of this machine, so it is the same wherever the same files are. `root.json` says what the
table was read from, and where; `extract`, `fit` and `evaluate` refuse a table that is older.
"""

import contextlib
import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from agiqa.core.errors import AgiqaError, printable, some
from agiqa.core.json_text import json_text
from agiqa.core.params import Source
from agiqa.core.regular_files import read_regular
from agiqa.core.trees import read_json
from agiqa.core.whole_files import write_whole
from agiqa.data.datasets import OFFICIAL
from agiqa.data.datasets.build import as_spelled
from agiqa.data.datasets.csv_file import image_paths
from agiqa.data.datasets.file_digests import FileDigests
from agiqa.data.datasets.folder import find_images
from agiqa.data.datasets.table import ROOT_JSON, ImagesTable
from agiqa.data.datasets.text_table import read_text_csv

log = logging.getLogger(__name__)

SOURCES = "sources.json"
MARK = "machine"  # what this machine alone writes into root.json beside its paths


class AbsentError(AgiqaError):
    """What a data set is made from is not on this machine."""


@dataclass(frozen=True)
class Origin:
    """Where the labels, the splits of other people and the images of a data set are."""

    kind: str  # as in the settings: csv, folder, demo, or an official data set's name
    labels: tuple[Path, ...] = ()
    splits: Mapping[str, Path] = field(default_factory=dict)  # by protocol
    root: Path | None = None  # of the images; None: the project makes them itself
    listed: tuple[Path, str] | None = None  # csv: the CSV and its column, which list the images

    def images(self) -> list[str]:
        """List the images there should be, relative to the root.

        Raises:
            AgiqaError: the CSV cannot be read, or the folder holds none.
        """
        if self.root is None:
            return []
        if self.listed is None:
            return [path.relative_to(self.root).as_posix() for path in find_images(self.root)]
        csv, column = self.listed
        labels = read_text_csv(csv, [column])
        paths = image_paths(labels[column], self.root, csv)
        return [as_spelled(self.root, path, str(csv)) for path in paths]


def origin_of(source: Source) -> Origin:
    """Find the origin of what `prepare` would read.

    Raises:
        AbsentError: a part of an official download is absent.
    """
    path, kind = Path(source.path).expanduser(), source.kind
    splits = {protocol: Path(file).expanduser() for protocol, file in source.splits.items()}
    if kind in OFFICIAL:
        try:
            parts = OFFICIAL[kind].find(path)
        except AgiqaError as error:
            raise AbsentError(str(error)) from error
        return Origin(kind, tuple(parts.labels.values()), splits, parts.images)
    if kind == "csv":
        root = Path(source.root) if source.root else path.parent
        return Origin(kind, (path,), splits, root, (path, source.image_column))
    return Origin(kind, splits=splits, root=path if kind == "folder" else None)


def note_sources(origin: Origin, folder: Path, workers: int) -> None:
    """Write `sources.json` into the data set's folder, if it is another than what is there.

    Raises:
        AbsentError: labels or images are not here, or a split file is not.
        AgiqaError: the labels cannot be read, or a file has changed since its splits were imported.
    """
    digests = FileDigests(folder)
    files = [*origin.labels, *origin.splits.values()]
    digest_of = dict(zip(files, digests.sha256(files), strict=True))
    if absent := [file for file, digest in digest_of.items() if digest is None]:
        raise AbsentError(f"{absent[0]}: expected a file of labels or splits, found none")
    _require_as_imported(origin, folder, digests)
    root = origin.root or folder
    if origin.root and not root.is_dir():
        raise AbsentError(f"{root}: expected a folder of images, found none")
    names = origin.images()
    paths = [root / name for name in names]
    images = digests.sha256(paths, workers)
    if names and not any(images):
        raise AbsentError(
            f"{root}: expected {len(names):,} images, found none of them, such as "
            f"{printable(names[0])}"
        )
    listing = "".join(
        f"{digest or 'absent'} {name}\n" for name, digest in sorted(zip(names, images, strict=True))
    )
    record = {
        "kind": origin.kind,
        "labels": {file.name: digest_of[file] for file in origin.labels},
        "splits": {protocol: digest_of[file] for protocol, file in origin.splits.items()},
        "images": len(names),
        "images_sha256": hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest(),
    }
    text = (json_text(record, indent=2) + "\n").encode()
    path = folder / SOURCES
    if not path.is_file() or path.read_bytes() != text:
        write_whole(path, text)
    digests.save([*files, *paths])


def _require_as_imported(origin: Origin, folder: Path, digests: FileDigests) -> None:
    """Refuse a split file that was edited after `agiqa splits import`, which alone reads it."""
    for protocol, (file, digest) in noted_sources(folder).get("splits", {}).items():
        now = digests.sha256([Path(file)])[0]
        if protocol not in origin.splits and now not in (None, digest):
            raise AgiqaError(
                f"{file} has changed since it was imported as the splits '{protocol}': run "
                "`agiqa splits import` again, or name it as sources.NAME.splits in params.yaml"
            )


class Reading:
    """The sources of a table while it is made: looked at before they are read."""

    def __init__(self, origin: Origin, folder: Path) -> None:
        self._origin, self._folder = origin, folder
        self._since = time.time_ns()
        self._digests = FileDigests(folder)
        self._files = [*origin.labels, *origin.splits.values()]
        digest_of = dict(zip(self._files, self._digests.sha256(self._files), strict=True))
        earlier = noted_sources(folder).get("splits", {})
        self.noted: dict[str, Any] = {
            "kind": origin.kind,
            "labels": {str(file.absolute()): digest_of[file] for file in origin.labels},
            "splits": {
                **earlier,
                **{name: [str(file.absolute()), digest_of[file]]
                   for name, file in origin.splits.items()},
            },
        }  # fmt: skip
        self.noted[MARK] = machine_mark(self.noted)

    def done(self, table: ImagesTable) -> None:
        """Remember the images that were hashed for the table."""
        paths = table.paths()
        self._digests.remember(paths, list(table.frame["image_id"]), self._since)
        self._digests.save([*self._files, *paths])


def noted_sources(folder: Path) -> dict[str, Any]:
    """Read what `root.json` says that the table was made from; empty where it does not.

    What another machine wrote is empty as well: its paths may be any file of this one.

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
    mark = sources.pop(MARK, "")
    return dict(sources) if mark == machine_mark(sources) else {}


def note_imported(folder: Path, protocol: str, file: Path) -> None:
    """Add to `root.json` which file a protocol was imported from."""
    path = folder / ROOT_JSON
    if not path.is_file():
        return
    sources = {"kind": "", "labels": {}, "splits": {}} | noted_sources(folder)
    digest = FileDigests(folder).sha256([file])[0]
    sources["splits"] = {**sources["splits"], protocol: [str(file.absolute()), digest]}
    root_record = read_json(path) | {"sources": sources | {MARK: machine_mark(sources)}}
    write_whole(path, json_text(root_record, ascii_only=True).encode())


def machine_mark(sources: Mapping[str, Any]) -> str:
    """Sign what a table was read from, so that no other machine's word is taken for this one's.

    The key lies in the user's cache folder and never leaves it. Without one (the folder cannot be
    written to) nothing that was noted counts.
    """
    path = platformdirs.user_cache_path("agiqa") / "machine-key"
    key = secrets.token_bytes(32)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(key)
        key = read_regular(path, 64)
    except (OSError, ValueError) as error:
        log.warning("%s: %s: later changes of a data set's labels go unnoticed", path, error)
    text = json_text({name: sources[name] for name in sorted(sources) if name != MARK})
    return hmac.new(key, text.encode("utf-8", "surrogateescape"), "sha256").hexdigest()


def require_fresh(
    table: ImagesTable, folder: Path, protocol: str = "", skip_bad: bool = False
) -> None:
    """Refuse a table that is older than its labels, its images or the splits of `protocol`.

    With `skip_bad` changed images are warned of alone: whoever opens each of them leaves it out.
    Sizes and times are compared, then the bytes where those differ. What is not on this machine
    (any more) is not compared: the table stands for itself.

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
    changed_files = [
        Path(file).name
        for (file, noted_digest), digest in zip(files.items(), now, strict=True)
        if digest not in (None, noted_digest)
    ]
    changed_images = _changed_images(table, digests, noted["kind"] == "folder")
    if changed_images and skip_bad:
        log.warning(
            "%s: %s changed since `agiqa prepare`: vectors in the cache are of what stood there",
            folder,
            some(changed_images, 3),
        )
        changed_images = []
    if changed := changed_files + changed_images:
        has = "has" if len(changed) == 1 else "have"
        raise AgiqaError(
            f"{folder}: the images table is older than what it was made from: {some(changed, 3)} "
            f"{has} changed since: run `agiqa prepare {table.name}` again"
        )


def _changed_images(table: ImagesTable, digests: FileDigests, is_listing: bool) -> list[str]:
    """Name images that are others than the table's; of a whole folder also those it lacks."""
    if table.root is None or not table.root.is_dir():
        return []
    names, noted_ids = list(table.frame["path"]), list(table.frame["image_id"])
    changed = [
        printable(name)
        for name, old, new in zip(names, noted_ids, digests.sha256(table.paths()), strict=True)
        if new not in (None, old)
    ]
    if is_listing:
        table_paths = {*names, *(bad.path for bad in table.skipped)}
        listed = [path.relative_to(table.root).as_posix() for path in find_images(table.root)]
        changed += [printable(name) for name in listed if printable(name) not in table_paths]
    return changed
