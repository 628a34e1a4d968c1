"""Official downloads from the Hugging Face hub: fetched, checked by checksum, unpacked.

huggingface_hub resumes a download that was stopped. Archives are unpacked into a hidden folder
first and moved from there file by file, so a stopped run leaves nothing half-written under its
final name; what is there already under another name is left alone.
"""

import logging
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from agiqa.core.errors import AgiqaError, one_line, printable
from agiqa.data.datasets.official import Facts, HubCopy

logger = logging.getLogger(__name__)

ARCHIVES = (".zip", ".tgz", ".tar", ".tar.gz")


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
