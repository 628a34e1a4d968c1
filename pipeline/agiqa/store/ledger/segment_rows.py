"""The rows of a folder of segments: which there are, and their vectors, each checked.

`Shelf` (a folder here) and `SharedShelf` (one at a URL) read through here. A row is looked for by
id in the greatest segment that has it (segments.order), and where it fails its checksum there, in
the others. Segments never change, so what was learned of one holds; only the listing is read again.
"""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.store.ledger.segment_folders import Part, SegmentFolder
from agiqa.store.ledger.segments import (
    MOST_BYTES,
    Kind,
    Layout,
    as_rows,
    build,
    ids_in,
    order,
    rows_of,
)
from agiqa.store.rows import Vectors, id_bytes, rows_a_block, several_at_once, whole_rows

logger = logging.getLogger(__name__)

LISTINGS = 20  # until two agree, or a segment that vanished is found in a larger one
_ROWS = 32  # bits of an address that say which row of its segment it is


class VanishedError(Exception):
    """A segment that was listed is there no more: its rows lie in a larger one."""


@dataclass(frozen=True, eq=False)
class Segment:
    """The rows of one segment, checked as they are read."""

    name: str
    layout: Layout
    ids: Sequence[str]  # of a segment that is cut short fewer than it is named for
    number: int  # in the order in which they were met


Result = TypeVar("Result")
Block = tuple[Segment, Vectors]
"""Some rows (n,) of a segment, in ascending order."""


class SegmentRows:
    """Rows of a folder of segments. Not for use from several threads at once."""

    def __init__(self, folder: SegmentFolder, kind: Kind) -> None:
        self.folder, self.kind = folder, kind
        self.unusable: dict[str, str] = {}  # why nothing of a segment is taken, by name
        self._by_name: dict[str, Segment] = {}
        self._by_number: dict[int, Segment] = {}  # in the order in which they were met
        self._sizes: dict[str, int] = {}  # of all that was looked at: one that is copied grows
        self._addresses: dict[str, int] = {}  # of rows, by id: segment's number, row in it
        self._counter = itertools.count()

    def segments(self) -> dict[str, Segment]:
        """Give the segments that hold rows, by name, as of the last `refresh`."""
        return dict(self._by_name)

    def ids(self) -> frozenset[str]:
        """Give the ids of all rows, as of the last `refresh`."""
        return frozenset(self._addresses)

    def __contains__(self, row_id: object) -> bool:
        return row_id in self._addresses

    def refresh(self) -> None:
        """List the segments again, until a listing shows nothing new.

        A merge that goes on between the first and the last name of a listing may hide rows from
        it, but not from the next one.
        """
        for _ in range(LISTINGS):
            sizes = dict(self.folder.sizes())
            new = {name for name, size in sizes.items() if self._sizes.get(name) != size}
            gone = {name for name, size in self._sizes.items() if sizes.get(name) != size}
            if not gone and not new:
                return
            for name in gone:
                del self._sizes[name]
                self.unusable.pop(name, None)
                if (segment := self._by_name.pop(name, None)) is not None:
                    del self._by_number[segment.number]
            self._take_in(self._read_ids({name: sizes[name] for name in new}), anew=bool(gone))

    def add(self, ids: Sequence[str], vectors: Vectors) -> str:
        """Write rows (n, D) as a new segment, durably; its name."""
        name = self.write(ids, vectors)
        self.note(name, ids)
        return name

    def write(self, ids: Sequence[str], vectors: Vectors) -> str:
        """Write rows (n, D) as a new segment, durably, and no more: any thread may; its name."""
        name, parts = build(self.kind, ids, vectors)
        self.folder.write(name, parts)
        return name

    def note(self, name: str, ids: Sequence[str]) -> None:
        """Take note of a segment that this process has written."""
        if name not in self._by_name:
            layout = Layout(self.kind, len(ids))
            self._sizes[name] = layout.size
            self._take_in([Segment(name, layout, list(ids), next(self._counter))])

    def _take_in(self, segments: Iterable[Segment], anew: bool = False) -> None:
        """Note segments that are there now; with `anew` find all rows' addresses again."""
        for segment in segments:
            self._by_name[segment.name] = self._by_number[segment.number] = segment
            if not anew:
                self._find(segment)
        if anew:
            self._addresses = {}
            for name in sorted(self._by_name, key=order):
                self._find(self._by_name[name])

    def _find(self, segment: Segment) -> None:
        for address, row_id in enumerate(segment.ids, segment.number << _ROWS):
            current = self._addresses.setdefault(row_id, address)
            greatest = self._by_number[current >> _ROWS]
            if greatest is not segment and order(greatest.name) < order(segment.name):
                self._addresses[row_id] = address

    def _read_ids(self, sizes: Mapping[str, int]) -> list[Segment]:
        """New segments with their ids; a few bytes of each are read. Strangers' are noted."""
        layouts = {name: Layout(self.kind, rows_of(name) or 0) for name in sorted(sizes)}
        parts: list[Part] = []
        for name, layout in layouts.items():
            if layout.size > MOST_BYTES or sizes[name] < layout.starts["image_id"] + 32:
                self._sizes[name] = sizes[name]
                wrong = "too few" if layout.size <= MOST_BYTES else "more than a segment has,"
                self._refuse(name, f"{sizes[name]:,} bytes, {wrong} for {layout.rows:,} rows")
            else:
                parts.append((name, 0, len(layout.header)))
                parts.append((name, layout.starts["image_id"], min(sizes[name], layout.size)))
        segments, data = [], self.folder.read_parts(parts)
        for index in range(0, len(parts), 2):
            name, head, tail = parts[index][0], data[index], data[index + 1]
            if head is None or tail is None:
                continue  # it vanished: the next listing shows where its rows are
            self._sizes[name] = sizes[name]
            if layouts[name].is_header(head):
                segments.append(Segment(name, layouts[name], ids_in(tail), next(self._counter)))
            else:
                self._refuse(name, "rows of another layout or fingerprint")
        return segments

    def _refuse(self, name: str, reason: str) -> None:
        self.unusable[name] = reason
        logger.warning(
            "%s/segments/%s: expected whole rows, found %s; none of it is taken, what it held is "
            "computed again: restore the file, or remove it",
            self.folder.where,
            name,
            reason,
        )

    def read(self, ids: Sequence[str]) -> tuple[Vectors, list[str]]:
        """Vectors (N, D) of `ids`, and ids of those that no segment has whole: theirs are NaN.

        AgiqaError where an id is unknown.
        """
        if unknown := [row_id for row_id in ids if row_id not in self._addresses]:
            raise AgiqaError(
                f"{self.folder.where}: expected rows for {len(ids)} images, found "
                f"{len(ids) - len(unknown)} (first missing: {unknown[0]}); run `agiqa extract`"
            )
        different = list(dict.fromkeys(ids))
        row_of = {row_id: row for row, row_id in enumerate(different)}
        vectors: Vectors = np.empty((len(different), self.kind.width), self.kind.dtype)

        def take(block: Block) -> list[str]:
            names, whole = self._whole_rows(block)
            rows = [row_of[name] for name in names]
            if rows and rows == list(range(rows[0], rows[0] + len(rows))):
                vectors[rows[0] : rows[0] + len(rows)] = whole  # other threads run meanwhile
            else:
                vectors[rows] = whole
            return names

        missing_ids = set(different)
        with several_at_once(vectors.nbytes) as at_once:
            for names in self._work_through(missing_ids, take, at_once):
                missing_ids.difference_update(names)
        damaged = [row_id for row_id in different if row_id in missing_ids]
        vectors[[row_of[row_id] for row_id in damaged]] = np.nan
        if len(different) < len(ids):
            vectors = vectors[[row_of[row_id] for row_id in ids]]
        return vectors, damaged

    def blocks(self, wanted: Iterable[str]) -> Iterator[tuple[list[str], Vectors]]:
        """Whole rows of the wanted ids, (n, D) at a time, each id at most once.

        AgiqaError where segments vanish again and again.
        """
        missing_ids = self._addresses.keys() & set(wanted)
        for names, vectors in self._work_through(missing_ids, self._whole_rows, map):
            missing_ids.difference_update(names)
            if names:
                yield names, vectors

    def _work_through(
        self,
        missing_ids: set[str],
        work: Callable[[Block], Result],
        at_once: Callable[[Callable[[Block], Result], Iterable[Block]], Iterable[Result]],
    ) -> Iterator[Result]:
        """Do `work` with the blocks that have rows `missing_ids`; the caller removes those it got.

        Each is read in the greatest segment that has it, then, if it was not whole, in all others.
        """
        for _ in range(LISTINGS):
            try:
                yield from at_once(work, self._blocks_of(self._greatest(missing_ids)))
                yield from at_once(work, self._blocks_of(self._all_of(missing_ids)))
                return
            except VanishedError:
                self.refresh()
        raise AgiqaError(
            f"{self.folder.where}: expected segments that stay for a while, found that they "
            "vanish again and again; run the same command again"
        )

    def _greatest(self, missing_ids: set[str]) -> dict[int, list[int]]:
        """Find, by the segment's number, the rows of it that serve."""
        rows: defaultdict[int, list[int]] = defaultdict(list)
        for row_id in missing_ids:
            if (address := self._addresses.get(row_id)) is not None:  # else it vanished for good
                number, row = divmod(address, 1 << _ROWS)
                rows[number].append(row)
        return rows

    def _all_of(self, missing_ids: set[str]) -> dict[int, list[int]]:
        """Find, by the segment's number, all rows of it that are missing."""
        missing_rows = {
            number: [row for row, row_id in enumerate(segment.ids) if row_id in missing_ids]
            for number, segment in (self._by_number.items() if missing_ids else ())
        }
        return {number: rows for number, rows in missing_rows.items() if rows}

    def _blocks_of(self, rows: Mapping[int, list[int]]) -> list[Block]:
        step = rows_a_block(self.kind.width, self.kind.dtype)
        blocks = []
        for number, unsorted in sorted(rows.items()):
            in_order = np.sort(np.array(unsorted))
            for start in range(0, len(in_order), step):
                blocks.append((self._by_number[number], in_order[start : start + step]))
        return blocks

    def _whole_rows(self, block: Block) -> tuple[list[str], Vectors]:
        """Read the rows of a block that are whole: ids, vectors (n, D)."""
        segment, rows = block
        vectors, whole = self.rows_of_segment(segment, rows)
        names = [segment.ids[row] for row in rows[whole].tolist()]
        return names, vectors if whole.all() else vectors[whole]

    def rows_of_segment(self, segment: Segment, rows: Vectors) -> tuple[Vectors, Vectors]:
        """Vectors (n, D) of rows (n,), in ascending order, and which of them are whole (n,).

        Raises:
            VanishedError: the segment is there no more.
        """
        layout = segment.layout
        start = layout.starts["row_crc32"]
        parts = [(segment.name, start, start + 4 * layout.rows)]
        runs = _runs(rows)
        vectors_at, size = layout.starts["vectors"], self.kind.row_bytes
        for first, stop in runs:
            parts.append((segment.name, vectors_at + first * size, vectors_at + stop * size))
        checksums, *data = self.folder.read_parts(parts)
        if checksums is None or any(block is None for block in data):
            raise VanishedError
        padded = checksums.ljust(4 * layout.rows, b"\0")
        blocks = [as_rows(block or b"", self.kind) for block in data]
        if any(len(b) != stop - first for b, (first, stop) in zip(blocks, runs, strict=True)):
            return np.zeros((len(rows), 0)), np.zeros(len(rows), dtype=bool)  # shorter than listed
        vectors = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        if len(blocks) == 1 and (np.diff(rows) != 1).any():  # other rows lie between
            vectors = vectors[rows - rows[0]]
        keys = id_bytes([segment.ids[row] for row in rows.tolist()])
        return vectors, whole_rows(keys, vectors, np.frombuffer(padded, "<u4")[rows])

    def checksums(self) -> dict[str, int]:
        """The CRC-32 of each row by its id, as the greatest segment that has it says."""
        sums: dict[str, int] = {}
        for segment in sorted(self.segments().values(), key=lambda segment: order(segment.name)):
            start = segment.layout.starts["row_crc32"]
            part = (segment.name, start, start + 4 * segment.layout.rows)
            (data,) = self.folder.read_parts([part])
            if data is not None:
                values = np.frombuffer(data, "<u4", len(data) // 4).tolist()
                sums.update(zip(segment.ids, values, strict=False))
        return sums


def _runs(rows: Vectors) -> list[tuple[int, int]]:
    """Join ascending rows into (first, stop); one where most rows of a stretch are wanted."""
    first, stop = int(rows[0]), int(rows[-1]) + 1
    if stop - first <= 2 * len(rows):
        return [(first, stop)]
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(rows, cuts)]
