"""What is read from a URL: a copy in the user's cache folder, checked, used while it is current.

`read_pack`, `fit` and `evaluate` take URLs through here. A listing tells whether a copy is current
(size and ETag, or time, of every file), so an unchanged pack is not copied again; a new copy takes
its place whole and only after its checksums have been compared.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import filelock
import platformdirs

from agiqa.core.errors import AgiqaError
from agiqa.core.urls import folder_name, is_url, shown
from agiqa.core.whole_files import write_file
from agiqa.store.durable import disk_errors, folder_aside, put_in_place
from agiqa.store.shared.remote import Remote, RemoteError, RemoteFile, is_inside


def local_copy(path: Path | str, check: Callable[[Path], object]) -> Path:
    """A path as it is; of a URL the path of a copy that passed `check`, under the same name."""
    if not isinstance(path, str):
        return path
    if not is_url(path):
        return Path(path)
    parent = path.rstrip("/").rpartition("/")[0]
    return fetch(path, copies_folder(parent), check)


def copies_folder(url: str) -> Path:
    """Where copies of what lies below a URL are kept."""
    return platformdirs.user_cache_path("agiqa") / "copies" / folder_name(url.rstrip("/"))


def fetch(url: str, folder: Path, check: Callable[[Path], object]) -> Path:
    """Copy the file or folder at `url` into `folder`, unless a current copy is there: its path.

    RemoteError where nothing is there, access is denied or the server does not answer; AgiqaError
    where `check` finds the copy damaged, and the older copy stays.
    """
    remote, name = Remote(url.rstrip("/")), url.rstrip("/").rpartition("/")[2]
    if not is_inside(name):
        raise RemoteError(f"{shown(url)}: expected a file's or folder's URL; correct its last part")
    copy, note = folder / name, folder / f".{name}.origin.json"
    files = remote.files()
    if not files:
        raise RemoteError(
            f"{shown(url)}: expected a file or folder, found nothing; correct the URL"
        )
    origin = json.dumps({path: file.version for path, file in sorted(files.items())})
    with disk_errors("write a copy to", folder):
        folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / f".{name}.lock"), disk_errors("write a copy to", folder):
        if all(file.version for file in files.values()) and _is_current(copy, note, origin):
            return copy
        with folder_aside(copy) as aside:
            new = aside / name
            _get(remote, files, new)
            try:
                check(new)
            except AgiqaError as error:
                reason = str(error).replace(str(new), shown(url))
                raise type(error)(f"{reason} (as it was copied from there)") from error
            note.unlink(missing_ok=True)
            put_in_place(new, copy)
        write_file(note, origin.encode())
    return copy


def _is_current(copy: Path, note: Path, origin: str) -> bool:
    try:
        return copy.exists() and note.read_text(encoding="utf-8") == origin
    except FileNotFoundError:
        return False


def _get(remote: Remote, files: dict[str, RemoteFile], new: Path) -> None:
    """Copy all files of a listing; RemoteError where one arrives cut short, or has no room."""
    paths = {path: new / path if path else new for path in files}
    size, free = sum(file.size for file in files.values()), shutil.disk_usage(new.parent).free
    if size > free:
        raise RemoteError(
            f"{shown(remote.url)}: expected at most the {free:,} bytes that are free here, found "
            f"{size:,}; make room, or copy less"
        )
    remote.get({path: (paths[path], file.size) for path, file in files.items()})
    for path, file in files.items():
        if (copied := paths[path].stat().st_size) != file.size:
            raise RemoteError(
                f"{shown(remote.url)}/{path}: expected {file.size} bytes, found {copied}; "
                "run the same command again"
            )
