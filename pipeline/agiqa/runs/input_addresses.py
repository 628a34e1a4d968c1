"""Addresses of images as people type them or tables name them: paths, patterns, braces, URLs.

What a person types, or writes into a list or table of their own, may lie anywhere. What a list or
table at a URL names is a stranger's word: files below its own folder, and further URLs.
"""

import glob
import itertools
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from agiqa.core.errors import AgiqaError, printable
from agiqa.core.urls import is_url, shown
from agiqa.data.datasets.table import inner_path
from agiqa.store.remote import remote_errors

log = logging.getLogger(__name__)

MOST_NAMES = 1_000_000  # that braces stand for
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
# A URL around the path of what it names: `zip://`, `a/b.csv`, `::s3://bucket/x.zip`.
PARTS = re.compile(r"((?:[\w+.-]+::)*[\w+.-]+://)(.*?)(::.*)?", re.DOTALL)
HERE = ("file://", "local://")  # URLs of this machine's files
WEB = ("http://", "https://")
# Whose lists may name others of their kind, since none of them reads this machine's files.
STORES = ("s3://", "s3a://", "gs://", "gcs://", "az://", "abfs://", "abfss://", "hf://")


class AddressError(AgiqaError):
    """An address at which there is nothing to read: `address` as it is shown, and the `reason`."""

    def __init__(self, address: object, reason: str) -> None:
        self.address, self.reason = printable(shown(str(address))), reason
        super().__init__(f"{self.address}: {reason}")


def find_addresses(name: str, folder: Path = Path()) -> Iterator[str]:
    """Find what is typed, with its braces and patterns: paths and URLs that need no more of them.

    Args:
        name: a path, a pattern (`a/**/*.png`) or a URL.
        folder: that paths are relative to.

    Raises:
        AddressError: there is no such file or folder, or none fits; URLs without a pattern are not
            looked at. Or braces stand for too many names.
    """
    for address in expand_braces(name, folder):
        yield from _matches(address, folder)


def find_listed(container: str, line: str) -> Iterator[str]:
    """Find what a line of a list stands for, as if it had been typed in the list's folder.

    Raises:
        AddressError: as of `find_addresses` and `named_in`.
    """
    if is_url(container):
        for name in expand_braces(line):
            yield from _matches(named_in(container, name), Path())
    else:
        yield from find_addresses(line, Path(container).parent)


def expand_braces(address: str, folder: Path = Path()) -> Iterator[str]:
    """List what braces stand for: `{a,b}` and `{000..012}`, as shells and webdataset have it.

    >>> list(expand_braces("s-{08..10}.tar"))
    ['s-08.tar', 's-09.tar', 's-10.tar']

    Raises:
        AddressError: they stand for too many names.
    """
    for number, name in enumerate(_expanded(address, folder)):
        if number >= MOST_NAMES:
            raise AddressError(address, f"its braces stand for more than {MOST_NAMES:,} names")
        yield name


def _matches(address: str, folder: Path) -> Sequence[str]:
    """Find the files that a path, a URL or a pattern of either stands for."""
    address = without_file_scheme(address)
    at_web = address.lower().startswith(WEB)
    is_pattern = "*" in _parts(address)[1] if at_web else glob.has_magic(address)
    if is_url(address):
        if not is_pattern:
            return [address]
        if at_web:
            raise AddressError(
                address,
                "is a pattern, but web servers list no files: name each, or a list of them (.txt)",
            )
        files, target = _listed(address, "glob"), address
    else:
        if not address.strip():
            raise AgiqaError("expected a path, found an empty one: '.' is this folder")
        target = str(folder / address)
        if _exists(target):
            return [target]
        if not is_pattern:
            raise AddressError(target, "does not exist")
        matches = sorted(glob.glob(address, root_dir=folder, recursive=True))  # noqa: PTH207
        files = [str(folder / match) for match in matches if not (folder / match).is_dir()]
    if not files:
        raise AddressError(target, "is a pattern that fits no file")
    return files


def _exists(path: Path | str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - a name that is too long is no error


def _expanded(address: str, folder: Path) -> Iterator[str]:
    match = BRACES.search(address)
    if match is None or _exists(folder / address):
        yield address
        return
    inner = match[1]
    if bounds := RANGE.fullmatch(inner):
        first, last = int(bounds[1]), int(bounds[2])
        if last < first:
            raise AddressError(address, "expected a range of numbers that rises in the braces")
        width = len(bounds[1]) if bounds[1].startswith("0") else 0
        parts: Iterator[str] = (f"{number:0{width}d}" for number in range(first, last + 1))
    elif "," in inner:
        parts = iter(inner.split(","))
    else:
        yield address
        return
    for part in parts:
        yield from _expanded(address[: match.start()] + part + address[match.end() :], folder)


def named_in(container: str, name: str) -> str:
    """Find the address of what a list or table names.

    Args:
        container: the list or table, a path or a URL.
        name: a path relative to its folder, an absolute one, or a URL.

    Raises:
        AddressError: there is no name, or one at a URL leads elsewhere than below its folder, to
            URLs of its own kind, or to the web.
    """
    if not name.strip() or "\0" in name:
        raise AddressError(name, "names no image")
    if not is_url(container):
        address = without_file_scheme(name)
        return address if is_url(address) else str(Path(container).parent / address)
    if is_url(name):
        scheme = _parts(container)[0]
        kinds = (*WEB, scheme) if scheme in STORES else WEB
        if name.startswith(kinds) and "::" not in name:
            return name
    else:
        try:
            return beside(container, inner_path(name, ""))
        except AgiqaError:
            pass
    raise AddressError(
        name,
        f"leads out of the folder of {shown(container)}: what lies at a URL names files in its own "
        "folder, or web addresses; copy it here to name others",
    )


def beside(url: str, name: str) -> str:
    """Build the URL of a name in the folder that a file's URL lies in."""
    scheme, path, chain = _parts(url)
    return f"{scheme}{path[: path.rfind('/') + 1]}{name}{chain}"


def suffix_of(address: str) -> str:
    """Cut out the suffix of the file that an address names, in lower case: `.tar`."""
    return Path(_parts(address)[1] if is_url(address) else address).suffix.lower()


def without_file_scheme(address: str) -> str:
    """Turn a URL of this machine's files into a path; all else stays."""
    if not address.lower().startswith(HERE) or "::" in address:
        return address
    import fsspec

    return str(fsspec.core.url_to_fs(address)[1])


def is_missing(url: str) -> bool:
    """Tell whether a server says that there is no such file; any other failure tells nothing."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
        system.info(path)
    except FileNotFoundError:
        return True
    except Exception:
        log.debug("%s: not looked up", shown(url), exc_info=True)
    return False


def files_below(url: str) -> list[str]:
    """List the files at a URL and below, sorted.

    Raises:
        AgiqaError: there is nothing, or it cannot be listed.
    """
    return _listed(url.rstrip("/") if not url.endswith("://") else url, "find")


def _listed(url: str, by: str) -> list[str]:
    """List the files that fsspec's `find` or `glob` gives, as URLs like the one that was typed."""
    import fsspec

    with remote_errors("list", url):
        system, root = fsspec.core.url_to_fs(url)
        if by == "glob" and system.exists(root):  # a name like a pattern
            return [url]
        entries = getattr(system, by)(root, detail=True)
        paths = sorted(path for path in entries if entries[path].get("type", "file") == "file")
    scheme, path, chain = _parts(url)
    fixed, kept = _plain_folders(root), _plain_folders(path)
    return [
        f"{scheme}{kept}{inner.removeprefix(fixed)}{chain}"
        if inner.startswith(fixed)
        else system.unstrip_protocol(inner)
        for inner in paths
    ]


def _plain_folders(path: str) -> str:
    """Cut a pattern off from the first folder, or file, that is one."""
    folders = re.findall("[^/]*/", path)
    return "".join(itertools.takewhile(lambda folder: not glob.has_magic(folder), folders))


def _parts(url: str) -> tuple[str, str, str]:
    """Split a URL into its scheme, the path of what it names, and what that lies in."""
    match = PARTS.fullmatch(url)
    assert match is not None, url  # a URL
    scheme, path, chain = match[1], match[2], match[3] or ""
    if scheme.lower().endswith(WEB):
        path = path.partition("?")[0].partition("#")[0]
    return scheme, path, chain
