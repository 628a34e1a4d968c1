"""Folders at URLs: `s3://bucket/path`, and whatever else fsspec opens; failures in one line.

The shared ledger (sharing.py) and packs that are read from elsewhere go through here. Credentials
and endpoints are fsspec's own business: AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and so on,
or the files in ~/.config/fsspec.

What `read_pack`, `fit` and `evaluate` read from a URL is a copy in the user's cache folder,
checked, used while it is current (`fetch`). A listing tells whether it is (size and ETag, or time,
of every file), so an unchanged pack is not copied again; a new copy takes its place whole and only
after its checksums have been compared.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import fsspec
import platformdirs
from fsspec.callbacks import Callback
from fsspec.implementations.local import LocalFileSystem

from agiqa.core.errors import AgiqaError, one_line, printable
from agiqa.core.urls import folder_name, shown
from agiqa.core.whole_files import write_file
from agiqa.store.files import disk_errors, folder_aside, put_in_place

LONGEST_PART = 200  # bytes of a file's or a folder's name
_EXTRAS = {"s3": "pip install 'agiqa[s3]'", "s3a": "pip install 'agiqa[s3]'"}
_FOLDERS = {"sftp", "ssh", "ftp", "smb", "hdfs", "webdav", "webdavs"}  # made before they are filled
# What a listing may know of a file beside its size, by which a change shows.
_VERSIONS = (
    *("ETag", "etag", "md5Hash", "content_md5"),
    *("LastModified", "last_modified", "mtime", "updated", "created"),
)


class RemoteError(AgiqaError):
    """A place at a URL that cannot be reached, read or written."""


@dataclass(frozen=True)
class RemoteFile:
    """What a listing says of a file."""

    size: int
    version: str  # changes with the content; "" where the server tells nothing of the kind


@dataclass(frozen=True)
class Remote:
    """A folder at a URL; names of files in it are relative, with forward slashes."""

    url: str

    def files(self, folder: str = "") -> dict[str, RemoteFile]:
        """List the files in or below `folder`, or itself under the name "" where it is a file.

        RemoteError where the bucket is missing or access denied; none where the folder is empty.
        """
        with remote_errors("list", address := _join(self.url, folder)):
            system, path = fsspec.core.url_to_fs(address)
            system.invalidate_cache()
            listing: Mapping[str, Any]
            if _protocols(system) & {"http", "https"}:
                # A web server lists no folders; fsspec would read a whole page of any length.
                listing = {path: system.info(path)}
            else:
                listing = system.find(path, detail=True)
        files = {}
        for name, entry in listing.items():
            if entry.get("type", "file") == "file" and not name.endswith("/"):
                inner = name.removeprefix(path.rstrip("/")).removeprefix("/")
                size = entry.get("size")
                if inner and not is_inside(inner):
                    raise RemoteError(
                        f"{shown(address)}: expected plain names of files inside the folder, found "
                        f"{inner[:200]!r}; remove it"
                    )
                if not isinstance(size, int) or size < 0:
                    raise RemoteError(
                        f"{shown(address)}/{inner}: expected a server that says how large a file "
                        "is, found one that does not; copy it by hand and name the copy"
                    )
                files[inner] = RemoteFile(size, _version(entry))
        return files

    def read(self, name: str, most: int) -> bytes:
        """A file's bytes; RemoteError where there are more than `most`."""
        with remote_errors("read", address := _join(self.url, name)):
            system, path = fsspec.core.url_to_fs(address)
            with system.open(path, "rb") as file:
                data: bytes = file.read(most + 1)
        if len(data) > most:
            raise RemoteError(
                f"{shown(address)}: expected at most {most:,} bytes, found more; remove it"
            )
        return data

    def read_parts(self, parts: Sequence[tuple[str, int, int]]) -> list[bytes | None]:
        """Read from start to stop of each (name, start, stop), at once; None: no such file."""
        if not parts:
            return []
        with remote_errors("read", self.url):
            system, path = fsspec.core.url_to_fs(self.url)
            names, starts, stops = zip(*parts, strict=True)
            paths = [_join(path, name) for name in names]
            blocks = system.cat_ranges(paths, list(starts), list(stops), on_error="return")
            for block in blocks:
                if isinstance(block, Exception) and not isinstance(block, FileNotFoundError):
                    raise block
        return [block if isinstance(block, bytes) else None for block in blocks]

    def write(self, name: str, data: bytes) -> None:
        """Put a whole file; on object stores it appears at once or not at all."""
        with remote_errors("write", address := _join(self.url, name)):
            system, path = fsspec.core.url_to_fs(address)
            if isinstance(system, LocalFileSystem):
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                write_file(Path(path), data)
                return
            if _protocols(system) & _FOLDERS:
                system.makedirs(path.rpartition("/")[0], exist_ok=True)
            system.pipe_file(path, data)

    def get(self, files: Mapping[str, RemoteFile], copy: Path) -> None:
        """Copy all files of a listing to this machine, below `copy`, several at once.

        RemoteError where one arrives cut short, or brings more bytes than are listed (no server
        fills the disk), or there is no room.
        """
        size, free = sum(f.size for f in files.values()), shutil.disk_usage(copy.parent).free
        if size > free:
            raise RemoteError(
                f"{shown(self.url)}: expected at most the {free:,} bytes that are free here, found "
                f"{size:,}; make room, or copy less"
            )
        paths = {name: copy / name if name else copy for name in files}
        for path in paths.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        with remote_errors("read", self.url):
            system, root = fsspec.core.url_to_fs(self.url)
            sizes = {str(path): files[name].size for name, path in paths.items()}
            system.get([_join(root, name) for name in paths], list(sizes), callback=_Bound(sizes))
        for name, path in paths.items():
            if (copied := path.stat().st_size) != files[name].size:
                raise RemoteError(
                    f"{shown(self.url)}/{name}: expected {files[name].size} bytes, found {copied}; "
                    "run the same command again"
                )


class _Bound(Callback):
    """fsspec's word of progress, made a limit: a copy ends where it has more bytes than listed."""

    def __init__(self, sizes: Mapping[str, int], name: str = "", most: int | None = None) -> None:
        super().__init__()
        self.sizes = sizes  # by the file's path here
        self.name = name  # there
        self.most = most

    def branched(self, path_1: str, path_2: str, **options: Any) -> "_Bound":
        """Give the limit of one file, on its way from `path_1` to `path_2`."""
        del options
        return _Bound(self.sizes, str(path_1), self.sizes.get(str(path_2)))

    def call(self, hook_name: str | None = None, **options: Any) -> None:
        """Stop a transfer of more bytes than were listed."""
        del hook_name, options
        if self.most is not None and self.value > self.most:
            raise RemoteError(
                f"{self.name}: expected {self.most:,} bytes, as the listing says, found more; "
                "nothing of it was kept: run the same command again, or look at the server"
            )


def copies_folder(url: str) -> Path:
    """Where copies of what lies below a URL are kept."""
    return platformdirs.user_cache_path("agiqa") / "copies" / folder_name(url.rstrip("/"))


def fetch(url: str, folder: Path, check: Callable[[Path], object] | None = None) -> Path:
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
        is_known = all(file.version for file in files.values()) and copy.exists() and note.exists()
        if is_known and note.read_text(encoding="utf-8") == origin:
            return copy
        with folder_aside(copy) as aside:
            new = aside / name
            remote.get(files, new)
            try:
                if check:
                    check(new)
            except AgiqaError as error:
                reason = str(error).replace(str(new), shown(url))
                raise type(error)(f"{reason} (as it was copied from there)") from error
            note.unlink(missing_ok=True)
            put_in_place(new, copy)
        write_file(note, origin.encode())
    return copy


def is_inside(name: str) -> bool:
    """Whether a name, with forward slashes, stays inside its folder on any machine."""
    parts = name.split("/")
    return (
        all(parts)
        and not {".", ".."}.intersection(parts)
        and not set(name).intersection("\\:")
        and printable(name) == name
        and all(len(part.encode()) <= LONGEST_PART for part in parts)
    )


@contextmanager
def remote_errors(doing: str, url: str) -> Iterator[None]:
    """Turn what fsspec and its servers' packages raise into one RemoteError line.

    Each server's package has exceptions of its own, so that any kind is taken for a failure.
    """
    try:
        yield
    except AgiqaError:
        raise
    except Exception as error:
        reason, advice = _explain(error, url)
        raise RemoteError(
            f"{shown(url)}: expected to {doing} it, found: {reason}; {advice}"
        ) from error


def _explain(error: Exception, url: str) -> tuple[str, str]:
    """What went wrong, and what to do."""
    text = one_line(error) or type(error).__name__
    protocol = re.split(r"::|://", url)[0]
    again = "then run the same command again"
    if isinstance(error, ImportError):
        advice = _EXTRAS.get(protocol, "install the package that it names")
        return f"no package for {protocol}:// ({text})", advice
    if isinstance(error, ValueError) and "rotocol" in text:
        return text, "give a URL that fsspec knows, such as s3://bucket/folder"
    if isinstance(error, FileNotFoundError):
        if isinstance(error.__cause__, OSError):  # fsspec's of a web server that does not answer
            return _explain(error.__cause__, url)
        reason = "nothing there" + (f" ({text})" if text != url else "")
        return reason, "correct the URL, or create the bucket"
    if isinstance(error, PermissionError) or "redential" in type(error).__name__:
        return f"no access ({text})", f"check the credentials and what they allow, {again}"
    return f"{type(error).__name__}: {text}", f"check the network and the server's address, {again}"


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if name else folder.rstrip("/")


def _protocols(system: Any) -> set[str]:
    named = system.protocol
    return {named} if isinstance(named, str) else set(named)


def _version(entry: Mapping[str, Any]) -> str:
    versions = [f"{key}={entry[key]}" for key in _VERSIONS if entry.get(key)]
    return f"size={entry.get('size')} {versions[0]}" if versions else ""
