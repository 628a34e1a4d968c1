"""The journal of a section: it alone decides which rows are valid.

A JSON line for each acknowledged write, each with a checksum of itself:

    {"check":"1f2e3d4c","first":256,"ids":["<sha256>",…],"crc32":[…]}   rows 256, 257, … hold ids
    {"check":"5b6a7988","dropped":["<sha256>",…]}                       found damaged: absent now

`check` is the CRC-32 of the line without it. A line is written and fsynced after the rows it
names, so a kill or power cut leaves whole lines and at most one torn tail, which readers ignore
and the next writer cuts off. Write-ahead logs (SQLite, LevelDB) end in the same way.
"""

from __future__ import annotations

import json
import logging
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from agiqa.core.errors import AgiqaError
from agiqa.core.trees import parse_json
from agiqa.store.durable import write_file
from agiqa.store.own_files import open_own

logger = logging.getLogger(__name__)

MOST_BYTES = 1 << 30  # of a journal: some ten million rows
SHORTEST_LINE = 32
LAST_POSITION = 1 << 40  # rows of an array
_CHECK = re.compile(rb'\{"check":"([0-9a-f]{8})",')
_HEX = frozenset("0123456789abcdef")


class Row(NamedTuple):
    """Where a row lies in the array, and the CRC-32 of its image id and vector."""

    position: int
    crc32: int


@dataclass(frozen=True)
class DamagedLine:
    """A line that was whole once and fails its checksum now."""

    number: int  # from 1
    start: int  # byte
    rows: int | None  # that it named, where the lines around it tell; 0: it dropped rows


@dataclass(frozen=True)
class JournalCheck:
    """What reading every line of a journal found."""

    lines: int
    damaged: tuple[DamagedLine, ...]
    torn: int  # bytes of a last line that a killed writer did not finish; no row was promised


class Journal:
    """The valid rows of a section, kept up to date by `refresh` and, under the lock, by writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, Row] = {}
        self.next_position = 0  # first position in the array that no valid line has used
        self._end = 0  # bytes up to the end of the last valid line
        self._file = (0, 0)  # device and inode: another one after `forget_damaged`

    def refresh(self) -> None:
        """Take in the lines that were added since; a torn tail is left for the next writer."""
        with open_own(self.path) as file:
            status = os.fstat(file.fileno())
            same = (status.st_dev, status.st_ino)
            if status.st_size < self._end or same != self._file:  # not our file: start over
                self.rows, self.next_position, self._end = {}, 0, 0
            self._file = same
            file.seek(self._end)
            lines = _lines(self.path, file)
        place, damaged = self._end, []
        for line in lines:
            entry = _parse(line)
            if entry is None:
                damaged.append(place)
            else:
                for start in damaged:  # with a valid line after it, so not a torn tail
                    logger.warning(
                        "%s: damaged line at byte %d; the rows it named count as absent",
                        self.path,
                        start,
                    )
                damaged = []
                self._apply(entry)
                self._end = place + len(line)
            place += len(line)

    def acknowledge(self, first: int, ids: Sequence[str], checksums: Sequence[int]) -> None:
        """Record durably that the rows from position `first` on hold `ids`."""
        self._append({"first": first, "ids": list(ids), "crc32": list(checksums)})

    def drop(self, ids: Sequence[str]) -> None:
        """Record durably that the rows of `ids` are not valid any more."""
        self._append({"dropped": list(ids)})

    def forget_damaged(self) -> None:
        """Take damaged lines, and a torn tail, out of the file; for its writer, after `refresh`.

        The rows that they named are absent before and after; the others stay where they are.
        """
        with open_own(self.path) as file:
            kept = [line for line in _lines(self.path, file) if _parse(line) is not None]
        write_file(self.path, b"".join(kept))
        self.refresh()

    def _append(self, entry: dict[str, Any]) -> None:
        body = json.dumps(entry, separators=(",", ":")).encode()
        line = b'{"check":"%08x",%b\n' % (zlib.crc32(body), body[1:])
        with self.path.open("r+b", buffering=0) as file:
            file.truncate(self._end)  # a torn tail, of a killed writer or of our own full disk
            file.seek(self._end)
            try:
                written = 0
                while written < len(line):
                    written += file.write(line[written:])
                os.fsync(file.fileno())
            except BaseException:
                with suppress(OSError):
                    file.truncate(self._end)
                raise
        self._end += len(line)
        self._apply(entry)

    def _apply(self, entry: dict[str, Any]) -> None:
        if "dropped" in entry:
            for image_id in entry["dropped"]:
                self.rows.pop(image_id, None)
            return
        first, ids = entry["first"], entry["ids"]
        for offset, (image_id, crc32) in enumerate(zip(ids, entry["crc32"], strict=True)):
            self.rows[image_id] = Row(first + offset, crc32)
        self.next_position = max(self.next_position, first + len(ids))


def check_journal(path: Path) -> JournalCheck:
    """Read every line of a journal and name the damaged ones; nothing is changed.

    A last line without its end is what a kill leaves, unless it would be whole with it.
    """
    with open_own(path) as file:
        lines = _lines(path, file)
    damaged: list[DamagedLine] = []
    place = torn = 0
    for index, line in enumerate(lines):
        if _parse(line) is None:
            last = index == len(lines) - 1
            if last and not line.endswith(b"\n") and _parse(line[:-1] + b"\n") is None:
                torn = len(line)
            else:
                damaged.append(DamagedLine(index + 1, place, _rows_between(lines, index)))
        place += len(line)
    return JournalCheck(len(lines) - bool(torn), tuple(damaged), torn)


def _rows_between(lines: Sequence[bytes], index: int) -> int | None:
    """Rows that no valid line names, between those before and after line `index`.

    Positions are handed out in turn. None where the neighbours are damaged or absent.
    """

    def firsts(found: Iterator[bytes]) -> Iterator[dict[str, Any]]:
        for line in found:
            entry = _parse(line)
            if entry is None or "first" in entry:
                yield entry or {}

    start: dict[str, Any] = {"first": 0, "ids": []}
    before = next(firsts(reversed(lines[:index])), start)
    after = next(firsts(iter(lines[index + 1 :])), {})
    if not before or not after:
        return None
    return max(0, int(after["first"]) - int(before["first"]) - len(before["ids"]))


def _parse(line: bytes) -> dict[str, Any] | None:
    """The line's entry, or None where it is torn or damaged."""
    match = _CHECK.match(line)
    if match is None or not line.endswith(b"\n"):
        return None
    body = b"{" + line[match.end() : -1]
    if zlib.crc32(body) != int(match[1], 16):
        return None
    try:
        entry = parse_json(body, strict=True)
    except ValueError:
        return None
    return entry if _is_entry(entry) else None


def _is_entry(entry: Any) -> bool:
    """Whether a line with a sound checksum says what lines say: a stranger's may not."""
    if not isinstance(entry, dict):
        return False
    if set(entry) == {"dropped"}:
        return _are_ids(entry["dropped"])
    if set(entry) != {"first", "ids", "crc32"}:
        return False
    first, ids, sums = entry["first"], entry["ids"], entry["crc32"]
    return (
        _are_ids(ids)
        and isinstance(sums, list)
        and len(sums) == len(ids)
        and all(type(crc32) is int and 0 <= crc32 < 2**32 for crc32 in sums)
        and type(first) is int
        and 0 <= first <= LAST_POSITION - len(ids)
    )


def _are_ids(values: Any) -> bool:
    return (
        isinstance(values, list)
        and all(type(value) is str and len(value) == 64 for value in values)
        and _HEX.issuperset("".join(values))
    )


def _lines(path: Path, file: BinaryIO) -> list[bytes]:
    """The lines from the file's place on; AgiqaError for what is no journal, or a bomb."""
    size = os.fstat(file.fileno()).st_size - file.tell()
    if size <= MOST_BYTES:
        data = file.read(size)
        if data.count(b"\n") + data.count(b"\r") <= size // SHORTEST_LINE + 1000:
            return data.splitlines(keepends=True)
    raise AgiqaError(
        f"{path}: expected a journal of at most {MOST_BYTES >> 30} GiB, found "
        + (f"{size:,} bytes" if size > MOST_BYTES else "lines that are none of a journal")
        + "; restore the file, or move the shelf away"
    )
