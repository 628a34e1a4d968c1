"""Official downloads: fetch them, find their parts, hold labels against images and the scale.

Each adapter says what it looks for; here is what becomes of a part that is absent, an image without
a label, a label without an image, a score off the scale, and a number of images that is not the
official one. All of it is cheap and comes before the first image is decoded.

What has a copy on the Hugging Face hub is fetched from there and checked by checksum;
huggingface_hub resumes a download that was stopped. Archives are unpacked into a hidden folder
first and moved from there file by file, so a stopped run leaves nothing half-written under its
final name; what is there already under another name is left alone.
"""

import logging
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pandas as pd

from agiqa.core.errors import AgiqaError, one_line, printable, some
from agiqa.core.regular_files import file_sha256
from agiqa.data.datasets.table import ImagesTable, build_table
from agiqa.data.datasets.text_table import (
    numbers,
    read_text_csv,
    read_text_sheet,
    refuse_duplicates,
)
from agiqa.data.images import IMAGE_SUFFIXES, BadImage

logger = logging.getLogger(__name__)

ARCHIVES = (".zip", ".tgz", ".tar", ".tar.gz")
ROUNDING = 0.006  # published ranges have two or three decimals
Range = tuple[float, float]


@dataclass(frozen=True)
class HubCopy:
    """A copy on the Hugging Face hub: archives that unpack to an official layout."""

    repository: str  # of kind dataset
    revision: str  # a commit, or a branch where the owners go on adding to it
    files: tuple[str, ...]  # to fetch; zip and tar archives among them are unpacked
    gigabytes: float  # to fetch
    whose: str  # for people: the authors' own, or who else's


@dataclass(frozen=True)
class Facts:
    """A data set with an official download."""

    name: str  # on the command line
    title: str  # in its paper
    images: int  # 0: not known
    targets: Mapping[str, Range]  # the least and greatest MOS published
    scale: Range  # ends of the MOS's nominal scale
    licence: str  # as its owners state it
    address: str  # the official source
    get: str  # what a person does to have it
    hub: HubCopy | None = None
    labels_sha256: str = ""  # of the (first) file of labels, where it was seen
    generators: int = 0  # 0: photographs
    prompts: int = 0  # 0: none, or not counted
    raters: str = "unknown"  # number of ratings of a score, and who says so
    aliases: tuple[str, ...] = ()  # what else papers and downloads call it, in lower case

    @property
    def source(self) -> str:
        """Title and address, as a table and its runs keep them."""
        return f"{self.title}, {self.address}"

    @property
    def how(self) -> str:
        """How to get it, for the end of an error."""
        return f"{self.get}, or give --download" if self.hub else self.get


@dataclass(frozen=True)
class Parts:
    """Where in an unpacked official download its parts lie."""

    labels: Mapping[str, Path]  # the files that hold labels, by what they hold: the rows' first
    images: Path  # the folder in or below which the images are; once read, that of the paths


@dataclass(frozen=True)
class Download:
    """What an adapter reads of an official download, before any image is opened."""

    parts: Parts
    rows: pd.DataFrame  # as `build_table` takes them, with all of the facts' targets
    present: Sequence[str] | None = None  # paths that should have a row; None: parts.images' own


@dataclass(frozen=True)
class Adapter:
    """How a data set's official download is read."""

    facts: Facts
    find: Callable[[Path], Parts]  # locates labels and images; AgiqaError: what is absent
    read: Callable[[Parts], Download]  # the labels, which say in which order rows stand


class Unpacked:
    """The folder of an unpacked download, and those of the archive's own names that are in it.

    Raises:
        AgiqaError: there is no such folder.
    """

    def __init__(self, source: Path, facts: Facts, *folders: str) -> None:
        if not source.is_dir():
            kind = "a file" if source.exists() else "none"
            raise AgiqaError(
                f"{source}: expected the folder of the unpacked {facts.title}, found {kind}: "
                f"{facts.how}"
            )
        self._source, self._facts = source, facts
        self.bases = [source, *(path for name in folders if (path := source / name).is_dir())]

    def file(self, *names: str, part: str = "") -> Path:
        """Find the first file of these names.

        Raises:
            AgiqaError: says what was looked for, what is there, and where the official one is.
        """
        paths = (base / name for base in self.bases for name in names)
        file = next((path for path in paths if path.is_file()), None)
        if file is None:
            raise self.absent(part or names[0])
        return file

    def folder(self, name: str) -> Path:
        """Find the first folder of that name; raises as `file`."""
        folders = self.folders(name)
        if not folders:
            raise self.absent(f"the folder {name}")
        return folders[0]

    def folders(self, *names: str) -> list[Path]:
        """List the folders of these names that are there, all of the first name first."""
        return [path for name in names for base in self.bases if (path := base / name).is_dir()]

    def absent(self, part: str) -> AgiqaError:
        """Make the error for a part of the download that is not in the folder."""
        present = some(sorted(printable(p.name) for p in self._source.iterdir())) or "nothing"
        return AgiqaError(
            f"{self._source}: expected {part} of {self._facts.title}, found {present}: give the "
            f"folder that the official download unpacks to; {self._facts.how}"
        )


def images_in(root: Path, folders: Iterable[str] = ("",)) -> list[str]:
    """List the images directly in folders of the root ("" is itself), as paths in the root."""
    return [
        f"{folder}/{path.name}" if folder else path.name
        for folder in folders
        for path in sorted((root / folder).iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]


def read_scores(
    file: Path, name_column: str, columns: Mapping[str, str], also: Sequence[str] = ()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read a CSV or XLSX of labels: its columns as text, and rows with path and scores.

    `columns` says which official column holds a score, or what stands beside it, by our name for
    it; `also` are further ones that the file must have.

    Raises:
        AgiqaError: the file cannot be read, lacks a column, or has no number where one should be.
    """
    read = read_text_sheet if file.suffix == ".xlsx" else read_text_csv
    labels = read(file, [name_column, *also, *columns.values()])
    rows = pd.DataFrame({"path": labels[name_column]})
    for name, column in columns.items():
        rows[name] = numbers(labels, column, name_column, file)
    return labels, rows


def prepare_download(
    adapter: Adapter, source: Path, *, skip_bad: bool = False, workers: int | None = None
) -> ImagesTable:
    """Read an unpacked official download into an images table.

    `skip_bad` leaves out images without a label, labels without an image, and bad images, instead
    of stopping.

    Raises:
        AgiqaError: a part is absent, labels and images disagree, a score is off the scale, or an
            image cannot be used.
    """
    download = adapter.read(adapter.find(source))
    facts, unlabelled = adapter.facts, _check(adapter.facts, download, skip_bad)
    table = build_table(
        facts.name,
        download.parts.images,
        download.rows,
        list(facts.targets),
        licence=facts.licence,
        source=facts.source,
        scale=facts.scale,
        skip_bad=skip_bad,
        workers=workers,
    )
    return replace(table, skipped=(*table.skipped, *unlabelled))


def _check(facts: Facts, download: Download, skip_bad: bool) -> list[BadImage]:
    """Check all that needs no image to be opened, and list the images without a label."""
    rows, labels = download.rows, next(iter(download.parts.labels.values()))
    if rows.empty:
        raise AgiqaError(f"{labels}: expected one row an image, found only the header")
    refuse_duplicates(rows["path"], labels)
    _check_scores(facts, rows, labels)
    digest = file_sha256(labels)
    if facts.images not in (0, len(rows)) or facts.labels_sha256 not in ("", digest):
        logger.warning(
            "%s: %s is of another version: expected %s rows, sha256 %s; found %s, sha256 %s: fetch "
            "it from %s; go on only if you mean to",
            facts.name,
            labels.name,
            f"{facts.images:,}" if facts.images else "not known how many",
            f"{facts.labels_sha256[:12]}…" if facts.labels_sha256 else "not known",
            f"{len(rows):,}",
            f"{digest[:12]}…",
            facts.address,
        )
    return _disagreement(facts.title, download, labels, skip_bad)


def _disagreement(title: str, download: Download, labels: Path, skip: bool) -> list[BadImage]:
    """List images without a label, to be left out; `build_table` sees labels without an image."""
    root, listed = download.parts.images, list(download.rows["path"])
    images = images_in(root) if download.present is None else download.present
    present, listed_paths = set(images), set(listed)
    missing = [path for path in listed if path not in present and not (root / path).exists()]
    if len(missing) == len(listed):
        raise AgiqaError(
            f"{root}: none of the {len(listed):,} images that {labels.name} lists is here, such as "
            f"{some([printable(path) for path in listed], 1)}: unpack the images of {title} "
            "there"
        )
    unlabelled = [printable(path) for path in images if path not in listed_paths]
    if (missing or unlabelled) and not skip:
        faults = []
        if missing:
            names = some([printable(path) for path in missing])
            are = "does" if len(missing) == 1 else "do"
            faults.append(
                f"{len(missing):,} of the {len(listed):,} that it lists {are} not exist ({names})"
            )
        if unlabelled:
            has = "has" if len(unlabelled) == 1 else "have"
            faults.append(f"{len(unlabelled):,} {has} no row in it ({some(unlabelled)})")
        raise AgiqaError(
            f"{root}: the images and {labels.name} disagree: {'; '.join(faults)}. Unpack all of "
            f"{title} again, or leave these out with --skip-bad"
        )
    return [BadImage(path, f"has no row in {labels.name}") for path in unlabelled]


def _check_scores(facts: Facts, rows: pd.DataFrame, labels: Path) -> None:
    low, high = facts.scale
    for target, (least, greatest) in facts.targets.items():
        scores = rows[target]
        wrong = rows[(scores < low) | (scores > high)]
        if len(wrong):
            pairs = zip(wrong["path"], wrong[target], strict=True)
            named = [f"{printable(path)}: {score:g}" for path, score in pairs]
            raise AgiqaError(
                f"{labels}: {target} must be from {low:g} to {high:g}; found others in "
                f"{len(wrong):,} of {len(rows):,} rows ({some(named)}): take the labels of the "
                f"official {facts.title}, {facts.address}"
            )
        if scores.min() < least - ROUNDING or scores.max() > greatest + ROUNDING:
            logger.warning(
                "%s: %s is %g…%g, the published range is %g…%g: other labels than the official?",
                facts.name,
                target,
                scores.min(),
                scores.max(),
                least,
                greatest,
            )


def download(facts: Facts, folder: Path) -> None:
    """Fetch the data set's hub copy into the folder and unpack it there.

    Raises:
        AgiqaError: it has no copy on the hub, the hub is out of reach, there is no room, a
            checksum is wrong, or an archive is damaged.
    """
    hub = facts.hub
    if hub is None:
        raise AgiqaError(
            f"{facts.title} has no copy on the hub that could be fetched for you: {facts.get}, "
            f"then run `agiqa prepare {facts.name} --from FOLDER`"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _require_room(facts, hub, folder)
        logger.info(
            "%s: fetching %.1f GB from huggingface.co/datasets/%s, %s; licence: %s",
            facts.name,
            hub.gigabytes,
            hub.repository,
            hub.whose,
            facts.licence,
        )
        _fetch(facts, hub, folder)
        for name in hub.files:
            if name.endswith(ARCHIVES):
                logger.info("%s: unpacking %s", facts.name, name)
                _unpack(folder / name, folder)
    except OSError as error:
        raise AgiqaError(
            f"{folder}: {facts.title} cannot be stored there ({error.strerror or error}): make "
            "room, or give another folder with --from"
        ) from error


def _require_room(facts: Facts, hub: HubCopy, folder: Path) -> None:
    paths = [folder / name for name in hub.files]
    fetched = sum(path.stat().st_size for path in paths if path.is_file())
    free, needed = shutil.disk_usage(folder).free, 2e9 * hub.gigabytes - fetched
    if free < needed:
        raise AgiqaError(
            f"{folder}: {facts.title} needs {needed / 1e9:.1f} GB there, packed and unpacked; "
            f"{free / 1e9:.1f} GB are free: make room, or give another folder with --from"
        )


def _fetch(facts: Facts, hub: HubCopy, folder: Path) -> None:
    """Fetch the copy's files, each with the checksum that the hub states."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        snapshot_download(
            hub.repository,
            repo_type="dataset",
            revision=hub.revision,
            allow_patterns=list(hub.files),
            local_dir=folder,
        )
        checked = HfApi().verify_repo_checksums(
            hub.repository, repo_type="dataset", revision=hub.revision, local_dir=folder
        )
    except Exception as error:  # network stacks raise many kinds; all mean the same here
        reason = f"{type(error).__name__}: {one_line(error).partition('. ')[0]}"
        raise AgiqaError(
            f"{facts.title} cannot be fetched from huggingface.co/datasets/{hub.repository} "
            f"({reason}). Try again, the download goes on where it stopped; or by hand: {facts.get}"
        ) from error
    absent = [name for name in hub.files if not (folder / name).is_file()]
    if absent:
        raise AgiqaError(
            f"huggingface.co/datasets/{hub.repository} has no {', '.join(absent)} any more: "
            f"{facts.get}"
        )
    for wrong in checked.mismatches:
        if wrong["path"] in hub.files:
            (folder / wrong["path"]).unlink()
            raise AgiqaError(
                f"{folder / wrong['path']}: expected the checksum {wrong['expected'][:12]}…, found "
                f"{wrong['actual'][:12]}…: it was removed; run the command again"
            )


def _unpack(archive: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as work:
        try:
            if archive.name.endswith(".zip"):
                with zipfile.ZipFile(archive) as opened:
                    opened.extractall(work)  # drops what climbs out of the folder
            else:
                with tarfile.open(archive) as opened_tar:
                    _extract(opened_tar, Path(work))
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, RuntimeError) as error:
            raise AgiqaError(f"{archive}: cannot be unpacked ({one_line(error)})") from error
        for path in sorted(Path(work).rglob("*")):
            if path.is_file():
                target = folder / path.relative_to(work)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)


def _extract(opened: tarfile.TarFile, work: Path) -> None:
    """Write a tar's files and nothing else; Python has filters for this from 3.11.4 on alone.

    Raises:
        TarError: a member is a link or device, or climbs out of the folder.
    """
    for member in opened:
        path = PurePosixPath(member.name.lstrip("/"))
        if ".." in path.parts:
            raise tarfile.TarError(f"{printable(member.name)} lies outside the folder")
        if member.isdir():
            continue
        source = opened.extractfile(member) if member.isreg() else None
        if source is None:
            raise tarfile.TarError(f"{printable(member.name)} is a link or device, no file")
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        with source, (work / path).open("wb") as target:
            shutil.copyfileobj(source, target)
