"""The rows of a folder of segments: which there are, and their vectors, each checked.

`Shelf` (a folder here) and `SharedShelf` (one at a URL) read through here. A row is looked for by
id in the greatest segment that has it (segments.order), and where it fails its checksum there, in
the others. Segments never change, so what was learned of one holds; only the listing is read again.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

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
    span,
)
from agiqa.store.rows import Vectors, id_bytes, rows_a_block, whole_rows

logger = logging.getLogger(__name__)

LISTINGS = 20  # until two agree, or a segment that vanished is found in a larger one
_ROWS = 32  # bits of a place that say which row of its segment it is


class VanishedError(Exception):
    """A segment that was listed is there no more: its rows lie in a larger one."""


@dataclass(frozen=True, eq=False)
class Segment:
    """One segment's rows."""

    name: str
    layout: Layout
    ids: Sequence[str]  # of a segment that is cut short fewer than it is named for


class SegmentRows:
    """Rows of a folder of segments. Not for use from several threads at once."""

    def __init__(self, folder: SegmentFolder, kind: Kind) -> None:
        self.folder, self.kind = folder, kind
        self.unusable: dict[str, str] = {}  # why nothing of a segment is taken, by name
        self._segments: list[Segment | None] = []  # None: it is there no more
        self._numbers: dict[str, int] = {}  # of segments, by name
        self._sizes: dict[str, int] = {}  # of all that was looked at: one that is copied grows
        self._places: dict[str, int] = {}  # of rows, by id: number of the segment, row in it

    def segments(self) -> dict[str, Segment]:
        """Those that hold rows, by name, as of the last `refresh`."""
        return {segment.name: segment for segment in self._segments if segment is not None}

    def ids(self) -> frozenset[str]:
        """Ids of all rows, as of the last `refresh`."""
        return frozenset(self._places)

    def __contains__(self, row_id: str) -> bool:
        return row_id in self._places

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
                if (number := self._numbers.pop(name, None)) is not None:
                    self._segments[number] = None
            self._take_in(self._read_ids({name: sizes[name] for name in new}), anew=bool(gone))

    def add(self, ids: Sequence[str], vectors: Vectors) -> str:
        """Write rows (n, D) as a new segment, durably; its name."""
        name, parts = build(self.kind, ids, vectors)
        self.folder.write(name, parts)
        if name not in self._numbers:
            layout = Layout(self.kind, len(ids))
            self._sizes[name] = layout.size
            self._take_in([Segment(name, layout, list(ids))])
        return name

    def _take_in(self, found: Iterable[Segment], anew: bool = False) -> None:
        """Note segments that are there now; with `anew` find all rows' places again."""
        for segment in found:
            self._numbers[segment.name] = len(self._segments)
            self._segments.append(segment)
            if not anew:
                self._find(segment)
        if anew:
            self._places = {}
            for segment in sorted(self.segments().values(), key=lambda one: order(one.name)):
                self._find(segment)

    def _find(self, segment: Segment) -> None:
        first = self._numbers[segment.name] << _ROWS
        for place, row_id in enumerate(segment.ids, first):
            known = self._places.setdefault(row_id, place)
            if known != place:
                other = self._segments[known >> _ROWS]
                if other is None or order(other.name) < order(segment.name):
                    self._places[row_id] = place

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
        found, data = [], self.folder.read_parts(parts)
        for place in range(0, len(parts), 2):
            name, head, tail = parts[place][0], data[place], data[place + 1]
            if head is None or tail is None:
                continue  # it vanished: the next listing shows where its rows are
            self._sizes[name] = sizes[name]
            if layouts[name].is_header(head):
                found.append(Segment(name, layouts[name], ids_in(tail)))
            else:
                self._refuse(name, "rows of another layout or fingerprint")
        return found

    def _refuse(self, name: str, found: str) -> None:
        self.unusable[name] = found
        logger.warning(
            "%s/segments/%s: expected whole rows, found %s; none of it is taken, what it held is "
            "computed again: restore the file, or remove it",
            self.folder.where,
            name,
            found,
        )

    def read(self, ids: Sequence[str]) -> tuple[Vectors, list[str]]:
        """Vectors (N, D) of `ids`, and ids of those that no segment has whole: theirs mean nothing.

        AgiqaError where an id is unknown.
        """
        for _ in range(LISTINGS):
            unknown = [row_id for row_id in ids if row_id not in self._places]
            if unknown:
                raise AgiqaError(
                    f"{self.folder.where}: expected rows for {len(ids)} images, found "
                    f"{len(ids) - len(unknown)} (first missing: {unknown[0]}); run `agiqa extract`"
                )
            try:
                return self._read_known(ids)
            except VanishedError:
                self.refresh()
        raise AgiqaError(
            f"{self.folder.where}: expected segments that stay for a while, found that they "
            "vanish again and again; run the same command again"
        )

    def _read_known(self, ids: Sequence[str]) -> tuple[Vectors, list[str]]:
        vectors: Vectors = np.full((len(ids), self.kind.width), np.nan, dtype=self.kind.dtype)
        wanted: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)  # (row, where to)
        for to, row_id in enumerate(ids):
            number, row = divmod(self._places[row_id], 1 << _ROWS)
            wanted[number].append((row, to))
        bad: list[int] = []
        for number, pairs in wanted.items():
            segment = self._segments[number]
            if segment is None:
                raise VanishedError
            bad += self._read_segment(segment, pairs, vectors)
        if bad:
            bad = self._read_elsewhere({ids[to]: to for to in bad}, vectors)
        return vectors, [ids[to] for to in sorted(bad)]

    def _read_elsewhere(self, left: dict[str, int], vectors: Vectors) -> list[int]:
        """Read rows that fail their checksum from other segments that have them; which are left."""
        left = dict(left)
        for segment in self.segments().values():
            pairs = [(row, left[name]) for row, name in enumerate(segment.ids) if name in left]
            if pairs:
                saved = {to for _, to in pairs}.difference(
                    self._read_segment(segment, pairs, vectors)
                )
                left = {name: to for name, to in left.items() if to not in saved}
        return list(left.values())

    def _read_segment(
        self, segment: Segment, pairs: Sequence[tuple[int, int]], vectors: Vectors
    ) -> list[int]:
        """Read (row, where to) of a segment into `vectors`, a block at a time; the bad places."""
        bad: list[int] = []
        step = rows_a_block(self.kind.width, self.kind.dtype)
        for start in range(0, len(pairs), step):
            some = sorted(pairs[start : start + step])
            rows = np.array([row for row, _ in some], dtype=np.int64)
            places = np.array([to for _, to in some], dtype=np.int64)
            found, whole = self.rows_of_segment(segment, rows)
            vectors[places[whole]] = found[whole]
            bad += places[~whole].tolist()
        return bad

    def rows_of_segment(self, segment: Segment, rows: Vectors) -> tuple[Vectors, Vectors]:
        """Vectors (n, D) of rows (n,), in ascending order, and which of them are whole (n,).

        Raises:
            VanishedError: the segment is there no more.
        """
        layout = segment.layout
        start = layout.starts["row_crc32"]
        parts = [(segment.name, start, start + 4 * layout.rows)]
        runs = _runs(rows)
        parts += [(segment.name, *span(layout, first, stop)) for first, stop in runs]
        checksums, *data = self.folder.read_parts(parts)
        if checksums is None or any(block is None for block in data):
            raise VanishedError
        padded = checksums.ljust(4 * layout.rows, b"\0")
        blocks = [as_rows(block or b"", self.kind) for block in data]
        if any(len(b) != stop - first for b, (first, stop) in zip(blocks, runs, strict=True)):
            return np.zeros((len(rows), 0)), np.zeros(len(rows), dtype=bool)  # shorter than listed
        found = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        if len(blocks) == 1 and (np.diff(rows) != 1).any():  # other rows lie between
            found = found[rows - rows[0]]
        keys = id_bytes([segment.ids[row] for row in rows.tolist()])
        return found, whole_rows(keys, found, np.frombuffer(padded, "<u4")[rows])

    def checksums(self) -> dict[str, int]:
        """The CRC-32 of each row by its id, as the greatest segment that has it says."""
        found: dict[str, int] = {}
        for segment in sorted(self.segments().values(), key=lambda one: order(one.name)):
            start = segment.layout.starts["row_crc32"]
            part = (segment.name, start, start + 4 * segment.layout.rows)
            (data,) = self.folder.read_parts([part])
            if data is not None:
                values = np.frombuffer(data, "<u4", len(data) // 4).tolist()
                found.update(zip(segment.ids, values, strict=False))
        return found

    def blocks(self, wanted: Collection[str]) -> Iterator[tuple[list[str], Vectors]]:
        """Whole rows of the wanted ids as they lie in the segments, each id at most once."""
        left = set(wanted)
        for _ in range(LISTINGS):
            try:
                for segment in sorted(
                    self.segments().values(), key=lambda one: order(one.name), reverse=True
                ):
                    yield from self._blocks_of(segment, left)
                return
            except VanishedError:
                self.refresh()

    def _blocks_of(self, segment: Segment, left: set[str]) -> Iterator[tuple[list[str], Vectors]]:
        rows = [row for row, row_id in enumerate(segment.ids) if row_id in left]
        step = rows_a_block(self.kind.width, self.kind.dtype)
        for start in range(0, len(rows), step):
            some = np.array(rows[start : start + step], dtype=np.int64)
            found, whole = self.rows_of_segment(segment, some)
            names = [segment.ids[row] for row in some[whole].tolist()]
            left.difference_update(names)
            if names:
                yield names, found[whole]


def _runs(rows: Vectors) -> list[tuple[int, int]]:
    """Rows in ascending order as (first, stop); all in one where many of a stretch are wanted."""
    first, stop = int(rows[0]), int(rows[-1]) + 1
    if stop - first <= 2 * len(rows):
        return [(first, stop)]
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(rows, cuts)]
