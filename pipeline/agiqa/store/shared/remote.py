"""Folders at URLs: `s3://bucket/path`, and whatever else fsspec opens; failures in one line.

The shared ledger (shared_shelf.py) and packs that are read from elsewhere (fetch.py) go through
here. Credentials and endpoints are fsspec's own business: AWS_PROFILE, AWS_ACCESS_KEY_ID,
AWS_ENDPOINT_URL and so on, or the files in ~/.config/fsspec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.callbacks import Callback
from fsspec.implementations.local import LocalFileSystem

from agiqa.core.errors import AgiqaError, one_line, printable
from agiqa.core.urls import shown
from agiqa.core.whole_files import write_file

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

    def get(self, names: Mapping[str, tuple[Path, int]]) -> None:
        """Copy files to this machine, each name to its path, several at once.

        RemoteError where one brings more bytes than is said beside its path: no server fills the
        disk.
        """
        for path, _ in names.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        with remote_errors("read", self.url):
            system, root = fsspec.core.url_to_fs(self.url)
            paths = [_join(root, name) for name in names]
            sizes = {str(path): size for path, size in names.values()}
            system.get(paths, list(sizes), callback=_Bound(sizes))


class _Bound(Callback):
    """fsspec's word of progress, made a limit: a copy ends where it has more bytes than listed."""

    def __init__(self, sizes: Mapping[str, int], name: str = "", most: int | None = None) -> None:
        super().__init__()
        self.sizes = sizes  # by the file's path here
        self.name = name  # there
        self.most = most

    def branched(self, path_1: str, path_2: str, **options: Any) -> _Bound:
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
