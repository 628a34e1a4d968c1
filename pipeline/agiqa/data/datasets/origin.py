"""What a data set is made from: which a name means, where it is, and whether its table is as old.

Labels, split files and images may be edited after `prepare`. `sources.json` says by their bytes
what there is now: `dvc repro` writes it first, and runs `prepare` again where it changed; it names
no folder of this machine, so it is the same wherever the same files are. `root.json` says what the
table was read from, and where; `extract`, `fit` and `evaluate` refuse a table that is older.

The sha256 of files are remembered with their size and times, so that what stays is read once, as
git's index does it: a file of the same size and times is the same file; one that changed within two
seconds of being hashed is hashed again, since file systems count time in steps. The memory is of
this machine (absolute paths), lies beside the images table and may be deleted at any time.
"""

import contextlib
import hashlib
import hmac
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import platformdirs

from agiqa.core.errors import AgiqaError, UsageError, printable, some
from agiqa.core.json_text import json_text
from agiqa.core.params import Params, Source
from agiqa.core.regular_files import file_sha256, read_regular
from agiqa.core.trees import read_json
from agiqa.core.whole_files import write_whole
from agiqa.data.datasets import OFFICIAL
from agiqa.data.datasets.csv_file import image_paths
from agiqa.data.datasets.folder import find_images
from agiqa.data.datasets.table import ROOT_JSON, ImagesTable, as_spelled
from agiqa.data.datasets.text_table import read_text_csv

log = logging.getLogger(__name__)

SOURCES = "sources.json"
KINDS = (*OFFICIAL, "csv", "folder", "demo")
TABLES = (".csv", ".tsv")

# What else a data set is called in papers and downloads: the name that it has here.
ALIASES = {alias: name for name, adapter in OFFICIAL.items() for alias in adapter.facts.aliases}
FILE = "file_digests.txt"  # a line a file: sha256, size, two times, path
MOST_FILES = 30_000  # of a folder: 10,000 splits of three files
STEP = 2 * 10**9  # ns; coarser than any file system's clock
MARK = "machine"  # what this machine alone writes into root.json beside its paths
State = tuple[int, int, int]  # size, and the times of the last change of content and of anything


class AbsentError(AgiqaError):
    """What a data set is made from is not on this machine."""


def canonical(name: str) -> str:
    """Give a data set's name here, for whatever it is called; other names are as they were."""
    lower = name.lower()
    return ALIASES.get(lower, lower if lower in KINDS else name)


def find_source(name: str, path_or_source: Source | Path | str | None, params: Params) -> Source:
    """Complete a source: of what kind it is, and where; the name says so where nothing else does.

    Without the source or its path it is as the settings have it.

    Raises:
        UsageError: a CSV's setting for another kind, or a path for the demo.
        AgiqaError: an unknown data set or kind, or nothing says where it is.
    """
    configured = params.sources.get(name, Source())
    source = configured if path_or_source is None else path_or_source
    if not isinstance(source, Source):
        source = replace(configured, path=str(source))
    path, named = source.path, canonical(name)
    kind = canonical(source.kind) or (named if named in KINDS else "")
    if not kind and path:
        kind = "csv" if path.lower().endswith(TABLES) else "folder"
        if kind == "folder" and Path(path).expanduser().is_file():
            raise AgiqaError(
                f"{path}: expected a folder of images, or a table whose name ends in "
                f"{' or '.join(TABLES)}: save it as one (--kind csv reads any as CSV)"
            )
    if not kind:
        raise AgiqaError(
            f"Unknown data set '{name}': give --from with a CSV or a folder, or add it to "
            f"'sources' in params.yaml. Built in: {', '.join(KINDS)}."
        )
    if kind not in KINDS:
        raise AgiqaError(
            f"sources.{name}.kind is '{kind}' in the settings; expected one of {', '.join(KINDS)}."
        )
    if not path and kind != "demo":
        folder = _folder_in_agiqa_data(name, kind)
        if folder is None:
            raise AbsentError(
                f"Where is '{name}'? Give --from, set sources.{name}.path in params.yaml, or set "
                "AGIQA_DATA to the folder that holds your data sets."
            )
        path = str(folder)
    _require_fitting(name, kind, source, configured)
    return replace(source, kind=kind, path=path)


def _require_fitting(name: str, kind: str, source: Source, configured: Source) -> None:
    """Refuse what was given beyond the settings if it means nothing for a source of this kind."""
    names = [field.name for field in fields(Source) if field.name not in ("kind", "splits")]
    changed = [key for key in names if getattr(source, key) != getattr(configured, key)]
    if "path" in changed and kind == "demo":
        raise UsageError(
            f"--from: '{name}' is made by agiqa itself: give your own data another name, or --kind."
        )
    if kind != "csv" and (columns := [key for key in changed if key != "path"]):
        option = "--" + columns[0].replace("_columns", "-column").replace("_", "-")
        raise UsageError(f"{option} is for a CSV; '{name}' is read as {kind}.")


def known_folder(name: str, params: Params) -> Path | None:
    """Say where the settings or $AGIQA_DATA would have an official data set; None: nowhere."""
    path = params.sources.get(name, Source()).path
    return Path(path).expanduser() if path else _folder_in_agiqa_data(name, name)


def _folder_in_agiqa_data(name: str, kind: str) -> Path | None:
    """Name a data set's folder in $AGIQA_DATA, by the name given or else by its own."""
    parent = os.environ.get("AGIQA_DATA")
    if not parent:
        return None
    folders = [Path(parent).expanduser() / folder for folder in (name, kind)]
    return next((folder for folder in folders if folder.exists()), folders[0])


class FileDigests:
    """What is known of the files that a table was made from."""

    def __init__(self, folder: Path) -> None:
        """Read the memory of the data set's `folder`; a damaged one is as good as none."""
        self._path = folder / FILE
        self._noted: dict[str, tuple[State, str]] = {}
        try:
            for line in self._path.read_text("utf-8").split("\n")[:-1]:
                digest, size, content, change, path = line.split(" ", 4)
                self._noted[path] = ((int(size), int(content), int(change)), digest)
        except (OSError, ValueError):
            self._noted = {}

    def sha256(self, paths: Sequence[Path], workers: int | None = None) -> dict[Path, str | None]:
        """Give the digest of each file or folder of files; None where none can be read."""
        with ThreadPoolExecutor(workers, thread_name_prefix="hash-files") as pool:
            digests = pool.map(self._file_or_folder, map(os.path.abspath, paths))
            return dict(zip(paths, digests, strict=True))

    def _file_or_folder(self, path: str) -> str | None:
        before = state(path)
        if before is None:
            return self._folder(Path(path))
        noted = self._noted.get(path)
        if noted is not None and noted[0] == before:
            return noted[1]
        try:
            digest = file_sha256(path)
        except (OSError, ValueError):
            return None
        self._noted[path] = (before, digest)
        return digest

    def _folder(self, folder: Path) -> str | None:
        """Hash names and digests of a folder's files, of splits as somebody released them."""
        files = sorted(islice(folder.rglob("*"), MOST_FILES + 1)) if folder.is_dir() else []
        if not 0 < len(files) <= MOST_FILES:
            return None
        lines = (f"{file.relative_to(folder)} {self._file_or_folder(str(file))}" for file in files
                 if file.is_file())  # fmt: skip
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    def remember(self, paths: Sequence[Path], digests: Sequence[str], since: int) -> None:
        """Take over digests that somebody else made of files which did not change `since` (ns)."""
        for path, digest in zip(map(os.path.abspath, paths), digests, strict=True):
            now = state(path)
            if now is not None and max(now[1:]) < since:
                self._noted[path] = (now, digest)

    def save(self, paths: Iterable[Path]) -> None:
        """Keep what is known of these files, and of no others."""
        settled = time.time_ns() - STEP
        lines = []
        for path in dict.fromkeys(map(os.path.abspath, paths)):
            if path in self._noted and printable(path) == path:
                noted_state, digest = self._noted[path]
                if max(noted_state[1:]) < settled:
                    lines.append(" ".join((digest, *map(str, noted_state), path)) + "\n")
        write_whole(self._path, "".join(lines).encode())


def state(path: str) -> State | None:
    """Look up size and times of a regular file; None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


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
    digest_of = digests.sha256([*origin.labels, *origin.splits.values()])
    if absent := [file for file, digest in digest_of.items() if digest is None]:
        raise AbsentError(f"{absent[0]}: expected a file of labels or splits, found none")
    _require_as_imported(origin, folder, digests)
    root = origin.root or folder
    if origin.root and not root.is_dir():
        raise AbsentError(f"{root}: expected a folder of images, found none")
    names = origin.images()
    image_digests = digests.sha256([root / name for name in names], workers)
    if names and not any(image_digests.values()):
        raise AbsentError(
            f"{root}: expected {len(names):,} images, found none of them, such as "
            f"{printable(names[0])}"
        )
    lines = (f"{image_digests[root / name] or 'absent'} {name}\n" for name in sorted(names))
    listing = "".join(lines)
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
    digests.save([*digest_of, *image_digests])


def _require_as_imported(origin: Origin, folder: Path, digests: FileDigests) -> None:
    """Refuse a split file that was edited after `agiqa splits import`, which alone reads it."""
    for protocol, (file, digest) in noted_sources(folder).get("splits", {}).items():
        now = digests.sha256([Path(file)])[Path(file)]
        if protocol not in origin.splits and now not in (None, digest):
            raise AgiqaError(
                f"{file} has changed since it was imported as the splits '{protocol}': run "
                "`agiqa splits import` again, or name it as sources.NAME.splits in params.yaml"
            )


class Reading:
    """The sources of a table while it is made: looked at before they are read."""

    def __init__(self, origin: Origin, folder: Path) -> None:
        self._since = time.time_ns()
        self._digests = FileDigests(folder)
        self._files = [*origin.labels, *origin.splits.values()]
        digest_of = self._digests.sha256(self._files)
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
    digest = FileDigests(folder).sha256([file])[file]
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
        Path(file).name for file, digest in files.items() if now[Path(file)] not in (None, digest)
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
    now = digests.sha256(table.paths())
    changed = [
        printable(name)
        for name, image_id in zip(names, noted_ids, strict=True)
        if now[table.root / name] not in (None, image_id)
    ]
    if is_listing:
        table_paths = {*names, *(bad.path for bad in table.skipped)}
        listed = [path.relative_to(table.root).as_posix() for path in find_images(table.root)]
        changed += [printable(name) for name in listed if printable(name) not in table_paths]
    return changed
