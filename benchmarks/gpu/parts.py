"""A bundle's format: entries cut into parts that travel one by one, and put together again.

An entry is a folder or file of ENTRIES, in the order in which they should travel. Each is a tar of
its own, cut into parts of at most PART bytes; bundle.json has, by entry, the sha256 of its parts.
An entry is unpacked once all of its parts are there. What arrives is not believed: bundle.json
names parts and nothing else, a tar holds files and folders of its entry, and nothing of either is
written beside `unpacked`.
"""

import hashlib
import io
import itertools
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

PART = 58_000_000  # bytes
ENTRIES = ("wheels", "ipce.csv", "agiqa-3k", "nano")
INDEX = "bundle.json"
MOST_INDEX = 1 << 16  # bytes of bundle.json
MOST_MEMBERS = 20_000  # files and folders of an entry
NAME, DIGEST = re.compile(r"part-[0-9]{2}"), re.compile(r"[0-9a-f]{64}")
CLASHES = (
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
)  # a name as file and folder
Index = dict[str, dict[str, str]]  # by entry, by part: its sha256


class InputError(Exception):
    """Wrong input: the line that says what was expected, what was found, and what to do."""


def cut(content: Path, folder: Path) -> int:
    """Write the entries of `content` as parts into `folder` in place of an older bundle's.

    Returns their number. bundle.json is the first to go and the last to come, so that what a stop
    leaves is no bundle.

    Raises:
        InputError: there are parts that no bundle.json names, which may be anything.
    """
    numbers, index = itertools.count(), Index()
    require_replaceable(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix="making-") as making:
        for entry in ENTRIES:
            if (content / entry).exists():
                index[entry] = _cut_entry(content / entry, Path(making), numbers)
        parts = sorted(Path(making).iterdir())
        old = [path for path in folder.iterdir() if NAME.fullmatch(path.name)]
        for path in (folder / INDEX, *old):
            path.unlink(missing_ok=True)
        for part in parts:
            part.replace(folder / part.name)
        (Path(making) / INDEX).write_text(json.dumps(index, indent=1), "utf-8")
        (Path(making) / INDEX).replace(folder / INDEX)
    return len(parts)


def require_replaceable(folder: Path) -> None:
    """Refuse a folder with parts but without a bundle.json; see `cut`."""
    stray = sorted(path.name for path in folder.iterdir() if NAME.fullmatch(path.name))
    if stray and not (folder / INDEX).is_file():
        raise InputError(
            f"{folder}: expected an older bundle or no parts, found {stray[0]} without a {INDEX}: "
            "remove the parts, or give another folder"
        )


def _cut_entry(entry: Path, folder: Path, numbers: Iterator[int]) -> dict[str, str]:
    """Write one entry's parts; give their sha256 by name."""
    digests = {}
    with tempfile.TemporaryFile(dir=folder) as whole:
        with tarfile.open(fileobj=whole, mode="w") as tar:
            for path in (entry, *sorted(entry.rglob("*"))):
                tar.add(path, path.relative_to(entry.parent), recursive=False)
        whole.seek(0)
        for data in iter(lambda: whole.read(PART), b""):
            name = f"part-{next(numbers):02d}"
            if not NAME.fullmatch(name):
                raise InputError(f"{entry}: expected at most 100 parts, found more")
            (folder / name).write_bytes(data)
            digests[name] = hashlib.sha256(data).hexdigest()
    return digests


def unpack(folder: Path) -> list[str]:
    """Unpack each entry whose parts are all there into `folder`/unpacked.

    Returns what is to be brought, a line for each entry that waits: empty once all is unpacked. An
    entry that was unpacked from the same parts is left as it is.

    Raises:
        InputError: bundle.json is not there, it or a tar is not what `cut` makes, the disk is full.
    """
    waiting = []
    try:
        index = read_index(folder)
        (folder / "unpacked").mkdir(exist_ok=True)
        for entry, digests in index.items():
            stamp = folder / "unpacked" / f"{entry}.done"
            unpacked_from = "\n".join(digests.values())
            there = stamp.is_file() and (folder / "unpacked" / entry).exists()
            if there and stamp.read_text("ascii", "replace") == unpacked_from:
                continue
            if faults := _faults(folder, digests):
                waiting.append(
                    f"{folder}: {', '.join(faults)}: bring what is named; steps that need "
                    f"{entry} are left out"
                )
                continue
            stamp.unlink(missing_ok=True)
            _unpack_entry(folder, entry, list(digests))
            stamp.write_text(unpacked_from, "ascii")
    except OSError as error:
        raise InputError(f"{folder}: cannot be unpacked: {error}") from None
    return waiting


def read_index(folder: Path) -> Index:
    """Read bundle.json: by entry, in their order, the sha256 of its parts by name.

    Raises:
        InputError: it is not there, or not what `cut` writes.
    """
    path = folder / INDEX
    try:
        with path.open("rb") as file:
            data = file.read(MOST_INDEX + 1)
        tree = json.loads(data, object_pairs_hook=_distinct) if len(data) <= MOST_INDEX else None
        return _checked_index(tree)
    except OSError as error:
        wrong = f"expected the list of the bundle's parts, found {error.strerror}"
    except RecursionError:
        wrong = "expected JSON, found brackets within brackets"
    except ValueError as error:
        wrong = str(error) if str(error).startswith("expected") else f"expected JSON, found {error}"
    again = "bring it again, or make the bundle again with bundle.py"
    raise InputError(f"{path}: {wrong}: {again}")


def _checked_index(tree: Any) -> Index:
    """Give what bundle.json holds, in the order of ENTRIES; ValueError says what it should be."""
    if not isinstance(tree, dict) or not tree:
        raise ValueError(f"expected the entries {', '.join(ENTRIES)}, found none of them")
    for entry, digests in tree.items():
        if entry not in ENTRIES:
            raise ValueError(f"expected the entries {', '.join(ENTRIES)}, found {_shown(entry)}")
        if not isinstance(digests, dict) or not digests:
            raise ValueError(f"expected the parts of {entry}, found none")
        for name, digest in digests.items():
            if not NAME.fullmatch(name):
                raise ValueError(f"expected names as part-00, found {_shown(name)}")
            if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
                raise ValueError(f"expected the sha256 of {name}, found {_shown(digest)}")
    names = [name for digests in tree.values() for name in digests]
    if len(set(names)) < len(names):
        raise ValueError("expected each part in one entry, found one in two")
    return {entry: tree[entry] for entry in ENTRIES if entry in tree}


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make the object of a JSON text, in which a name stands once."""
    if len(names := {name for name, _ in pairs}) < len(pairs):
        raise ValueError(f"a name twice among {len(names)}")
    return dict(pairs)


def _shown(value: object) -> str:
    """Show something of somebody else's in a line, cut and escaped."""
    return ascii(value)[:60]


def _faults(folder: Path, digests: dict[str, str]) -> list[str]:
    """List the parts that are not there, or not what they were when they were made."""
    faults = []
    for name, expected in digests.items():
        path = folder / name
        if not path.is_file():
            faults.append(f"{name} is missing")
        elif path.stat().st_size > PART or _sha256(path) != expected:
            faults.append(f"{name} is damaged")
    return faults


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Joined(io.RawIOBase):
    """The parts one after the other, to be read as one file."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = (path.open("rb", buffering=0) for path in paths)
        self._file = next(self._files)

    def readable(self) -> bool:
        """Be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what follows; 0 at the end."""
        while not (count := self._file.readinto(buffer)):
            following = next(self._files, None)
            if following is None:
                return 0
            self._file.close()
            self._file = following
        return count

    def close(self) -> None:
        """Close the part that is being read."""
        self._file.close()
        super().close()


def _unpack_entry(folder: Path, entry: str, names: Sequence[str]) -> None:
    """Unpack the parts of one entry beside `unpacked`, and put it there once it is whole."""
    paths, target = [folder / name for name in names], folder / "unpacked" / entry
    needed, free = sum(path.stat().st_size for path in paths), shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder}: expected {needed / 1e6:,.0f} MB of disk to unpack {entry}, found "
            f"{free / 1e6:,.0f} MB: make room"
        )
    with tempfile.TemporaryDirectory(dir=folder, prefix="unpacking-") as unpacking:
        try:
            with (
                io.BufferedReader(_Joined(paths)) as joined,
                tarfile.open(fileobj=joined, mode="r|") as tar,
            ):
                _write_members(tar, entry, Path(unpacking))
            if not (whole := Path(unpacking) / entry).exists():
                raise ValueError("nothing of it")
        except (tarfile.TarError, ValueError, OverflowError, EOFError, *CLASHES) as error:
            raise InputError(
                f"{folder}: expected a tar of the files of {entry} in {', '.join(names)}, found "
                f"{error}: make the bundle again with bundle.py"
            ) from None
        if target.is_dir():
            shutil.rmtree(target)
        whole.replace(target)


def _write_members(tar: tarfile.TarFile, entry: str, folder: Path) -> None:
    """Write the files of an entry: plain ones alone, as tarfile's filters came with 3.11.4.

    Raises:
        ValueError: a member is a link or a device, leads out of the entry, or is one too many.
    """
    for number, member in enumerate(tar, 1):
        words = PurePosixPath(member.name).parts
        if not (member.isreg() or member.isdir()) or member.issparse():
            raise ValueError(f"{_shown(member.name)}, which is no plain file or folder")
        if not words or words[0] != entry or ".." in words:
            raise ValueError(f"{_shown(member.name)}, which leads out of it")
        if number > MOST_MEMBERS:
            raise ValueError(f"more than {MOST_MEMBERS:,} files")
        path = folder.joinpath(*words)
        (path if member.isdir() else path.parent).mkdir(parents=True, exist_ok=True)
        if (content := tar.extractfile(member)) is not None:
            with path.open("xb") as file:
                shutil.copyfileobj(content, file)
