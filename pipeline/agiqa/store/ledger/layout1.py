"""Shelves as agiqa kept them before segments; read only, for `agiqa cache merge OLD`.

    fingerprint.json                 as now, with layout 1
    journal.jsonl                    {"check": …, "first": 256, "ids": […], "crc32": […]} a line
                                     {"check": …, "dropped": […]}
    vectors/c.<chunk>.0              256 rows each, little-endian
    part-1/journal.jsonl, vectors/   the same of further ranks

A row is taken if a whole line names it and its checksum fits, whatever is wrong around it. The next
release may leave this out.
"""

import re
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.core.trees import parse_json
from agiqa.store.files import disk_errors, open_own, read_own, require_own_file, require_own_folder
from agiqa.store.ledger.shelf import read_description
from agiqa.store.rows import DTYPES, Vectors, whole_rows

JOURNAL, ARRAY = "journal.jsonl", "vectors"
ROWS_A_CHUNK = 256
LARGEST_JOURNAL = 1 << 30  # bytes: some ten million rows
SHORTEST_LINE = 32
LAST_POSITION = 1 << 40
_PART = re.compile(r"part-[1-9][0-9]{0,8}")
_CHECK = re.compile(rb'\{"check":"([0-9a-f]{8})",')
_HEX = frozenset("0123456789abcdef")


class _Row(NamedTuple):
    array: Path
    position: int
    crc32: int


class OldShelf:
    """A shelf of layout 1; AgiqaError where anything but rows is wrong with it."""

    def __init__(self, folder: Path) -> None:
        with disk_errors("read", folder):
            self.folder, self.described = folder, read_description(folder)
            self._sections: list[dict[str, _Row]] = []  # the first that has a row whole serves
            parts = sorted(path for path in folder.iterdir() if _PART.fullmatch(path.name))
            for section in [folder, *parts]:
                require_own_folder(section)
                if (section / JOURNAL).exists() or section == folder:
                    require_own_folder(section / ARRAY)
                    self._sections.append(_valid_rows(section))

    def checksums(self) -> dict[str, int]:
        """The CRC-32 of each row by its id."""
        sums: dict[str, int] = {}
        for rows in reversed(self._sections):
            sums |= {name: row.crc32 for name, row in rows.items()}
        return sums

    def blocks(self, wanted: Collection[str]) -> Iterator[tuple[list[str], Vectors]]:
        """Whole rows of the wanted ids, one (1, D) at a time, in the order of the files."""
        missing_ids = set(wanted)
        for rows in self._sections:
            for name in sorted(missing_ids & rows.keys(), key=lambda name: rows[name]):
                if (vector := self._read(name, rows[name])) is not None:
                    missing_ids.remove(name)
                    yield [name], vector

    def _read(self, name: str, row: _Row) -> Vectors | None:
        """Read a row (1, D); None where it is not whole."""
        path = row.array / f"c.{row.position // ROWS_A_CHUNK}.0"
        size = self.described.width * np.dtype(self.described.dtype).itemsize
        with disk_errors("read", path), suppress(FileNotFoundError), open_own(path) as file:
            file.seek(row.position % ROWS_A_CHUNK * size)
            if len(data := file.read(size)) == size:
                vector = np.frombuffer(data, dtype=DTYPES[self.described.dtype])[None]
                crc32 = np.array([row.crc32], dtype=np.uint32)
                if whole_rows([bytes.fromhex(name)], vector, crc32)[0]:
                    return vector
        return None


def _valid_rows(section: Path) -> dict[str, _Row]:
    """What a section's journal names; whole lines count, others do not."""
    path, rows = section / JOURNAL, dict[str, _Row]()
    try:
        if require_own_file(path).stat().st_size > LARGEST_JOURNAL:  # before memory is taken
            raise ValueError(f"more than {LARGEST_JOURNAL:,} bytes")
        data = read_own(path, LARGEST_JOURNAL)
    except ValueError as error:
        raise AgiqaError(f"{path}: expected a journal, found {error}; restore it") from error
    if data.count(b"\n") + data.count(b"\r") > len(data) // SHORTEST_LINE + 1000:
        raise AgiqaError(f"{path}: expected a journal, found lines that are none; restore it")
    for entry in filter(_is_entry, map(_parse, data.splitlines(keepends=True))):
        for name in entry.get("dropped", ()):
            rows.pop(name, None)
        pairs = zip(entry.get("ids", ()), entry.get("crc32", ()), strict=True)
        for position, (name, crc32) in enumerate(pairs, entry.get("first", 0)):
            rows[name] = _Row(section / ARRAY, position, crc32)
    return rows


def _parse(line: bytes) -> Any:
    """The line's entry, or None where it is torn or damaged."""
    match = _CHECK.match(line)
    if match is None or not line.endswith(b"\n"):
        return None
    body = b"{" + line[match.end() : -1]
    with suppress(ValueError):
        return parse_json(body, strict=True) if zlib.crc32(body) == int(match[1], 16) else None
    return None


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
