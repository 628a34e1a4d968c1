"""The rows of a folder of segments: which there are, and their vectors, each checked.

`Shelf` (a folder here) and `SharedShelf` (one at a URL) read through here. A row is looked for by
id in the greatest segment that has it (segments.order), and where it fails its checksum there, in
the others. Segments never change, so what was learned of one holds; only the listing is read again.

Small segments are merged into large ones, and taken away where their rows lie in greater ones. Any
number of processes may do this at once, on machines that share no lock. What is removed lies
durably in a segment that this process has just written, or compared byte for byte with its name;
and that one is greater, so that no two are ever removed for each other: of each row the greatest
whole segment stays.
"""

import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.store.ledger.segments import (
    MOST_BYTES,
    Kind,
    Layout,
    Part,
    SegmentFolder,
    build,
    ids_in,
    order,
    rows_a_segment,
    rows_of,
)
from agiqa.store.rows import DTYPES, Vectors, id_bytes, rows_a_block, several_at_once, whole_rows

logger = logging.getLogger(__name__)

MANY = 32  # segments of about one size are merged, so that each row is written few times
LISTINGS = 20  # until two agree, or a segment that vanished is found in a larger one
_PART = 1 << 20  # bytes that are hashed at a time
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
            segments = self._read_ids({name: sizes[name] for name in new})
            if gone:  # all rows' addresses are found again
                self._addresses = {}
                segments = [*self._by_name.values(), *segments]
            self._take_in(segments)

    def add(self, ids: Sequence[str], vectors: Vectors) -> str:
        """Write rows (n, D) as a new segment, durably, and take note of it; its name."""
        name, parts = build(self.kind, ids, vectors)
        self.folder.write(name, parts)
        if name not in self._by_name:
            layout = Layout(self.kind, len(ids))
            self._sizes[name] = layout.size
            self._take_in([Segment(name, layout, list(ids), next(self._counter))])
        return name

    def _take_in(self, segments: Iterable[Segment]) -> None:
        """Note segments that are there now, and of each row the greatest that has it."""
        for segment in segments:
            self._by_name[segment.name] = self._by_number[segment.number] = segment
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
        row_of = {row_id: row for row, row_id in enumerate(dict.fromkeys(ids))}
        vectors: Vectors = np.empty((len(row_of), self.kind.width), self.kind.dtype)
        missing_ids = set(row_of)
        with several_at_once(vectors.nbytes) as at_once:
            for names, whole in self._whole_rows(missing_ids, at_once):
                vectors[[row_of[name] for name in names]] = whole
        damaged = [row_id for row_id in row_of if row_id in missing_ids]
        vectors[[row_of[row_id] for row_id in damaged]] = np.nan
        if len(row_of) < len(ids):
            vectors = vectors[[row_of[row_id] for row_id in ids]]
        return vectors, damaged

    def blocks(self, wanted: Iterable[str]) -> Iterator[tuple[list[str], Vectors]]:
        """Whole rows of the wanted ids, (n, D) at a time, each id at most once.

        AgiqaError where segments vanish again and again.
        """
        yield from self._whole_rows(self._addresses.keys() & set(wanted), map)

    def _whole_rows(
        self, missing_ids: set[str], at_once: Callable[..., Iterable[Any]]
    ) -> Iterator[tuple[list[str], Vectors]]:
        """Yield whole rows: ids, vectors (n, D); and take their ids out of `missing_ids`."""
        for _ in range(LISTINGS):
            try:
                for addresses in self._addresses_of(missing_ids):
                    blocks = list(self._blocks_of(addresses))
                    for names, vectors in at_once(self._read_block, blocks):
                        missing_ids.difference_update(names)
                        if names:
                            yield names, vectors
                return
            except VanishedError:
                self.refresh()
        raise AgiqaError(
            f"{self.folder.where}: expected segments that stay for a while, found that they "
            "vanish again and again; run the same command again"
        )

    def _addresses_of(self, missing_ids: set[str]) -> Iterator[list[int]]:
        """Yield where rows lie that did not vanish for good: in the greatest segments with them.

        Then, of those that were not whole there and are missing yet, in one segment after another.
        """
        yield [self._addresses[row_id] for row_id in missing_ids if row_id in self._addresses]
        for segment in list(self._by_number.values()) if missing_ids else ():
            addresses = enumerate(segment.ids, segment.number << _ROWS)
            yield [address for address, row_id in addresses if row_id in missing_ids]

    def _blocks_of(self, addresses: list[int]) -> Iterator[tuple[Segment, Vectors]]:
        """Divide rows into blocks: a segment, and some rows (n,) of it in ascending order."""
        numbers, rows = np.divmod(np.sort(np.array(addresses, dtype=np.int64)), 1 << _ROWS)
        step = rows_a_block(self.kind.width, self.kind.dtype)
        firsts = np.flatnonzero(np.diff(numbers, prepend=-1))  # of each segment's
        parts = np.split(rows, firsts[1:])  # one, empty, where there are no rows
        for number, of_segment in zip(numbers[firsts].tolist(), parts, strict=False):
            for start in range(0, len(of_segment), step):
                yield self._by_number[number], of_segment[start : start + step]

    def _read_block(self, block: tuple[Segment, Vectors]) -> tuple[list[str], Vectors]:
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
        if checksums is None or None in data:
            raise VanishedError
        padded = checksums.ljust(4 * layout.rows, b"\0")
        content = b"".join(block for block in data if block is not None)
        if len(content) != size * sum(stop - first for first, stop in runs):
            return np.zeros((len(rows), 0)), np.zeros(len(rows), dtype=bool)  # shorter than listed
        vectors = np.frombuffer(content, DTYPES[self.kind.dtype]).reshape(-1, self.kind.width)
        if len(vectors) > len(rows):  # other rows lie between
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


def merge_small(rows: SegmentRows, everything: bool = False) -> int:
    """Merge small segments where there are many of about one size, or all; how many went.

    A disk that refuses costs nothing but the merge: a warning says so.
    """
    try:
        rows.refresh()
        return sum(_merge(rows, group) for group in list(_groups(rows, everything)))
    except AgiqaError as error:
        logger.warning("%s: segments were not merged: %s", rows.folder.where, error)
        return 0


def _groups(rows: SegmentRows, everything: bool) -> Iterator[list[Segment]]:
    """Segments to be merged, each group into one; the smallest first."""
    most = rows_a_segment(rows.kind)
    small = [segment for segment in rows.segments().values() if segment.layout.rows < most]
    if not everything:
        sizes = Counter(segment.layout.rows.bit_length() // 4 for segment in small)
        largest = max((size for size, count in sizes.items() if count >= MANY), default=-1)
        small = [segment for segment in small if segment.layout.rows.bit_length() // 4 <= largest]
    group: list[Segment] = []
    for segment in sorted(small, key=lambda segment: order(segment.name)):
        group.append(segment)
        if sum(segment.layout.rows for segment in group) >= most:
            yield group
            group = []
    yield group


def _merge(rows: SegmentRows, group: Sequence[Segment]) -> int:
    """Write the group's rows into one segment and remove the others; how many went.

    A segment with a damaged row is left as it is, for `verify`.
    """
    whole = [segment for segment in group if is_whole(rows, segment)]
    if len(whole) < 2:
        return 0
    whole.sort(key=lambda segment: order(segment.name), reverse=True)
    merged = whole[0].name
    ids = list(dict.fromkeys(row_id for segment in whole for row_id in segment.ids))
    if len(ids) > len(whole[0].ids):
        vectors, damaged = rows.read(ids)
        if damaged:
            return 0
        merged = rows.add(ids, vectors)
    gone = [segment.name for segment in whole if order(segment.name) < order(merged)]
    rows.folder.remove(gone)
    rows.refresh()
    return len(gone)


def is_whole(rows: SegmentRows, segment: Segment) -> bool:
    """Whether a segment's bytes are those that it is named after."""
    digest, start = hashlib.sha256(), 0
    while True:
        (block,) = rows.folder.read_parts([(segment.name, start, start + _PART)])
        if not block:
            return block is not None and digest.hexdigest() == segment.name.partition("-")[0]
        digest.update(block)
        start += len(block)


def redundant(rows: SegmentRows) -> list[Segment]:
    """Segments all of whose rows lie in greater ones, by their ids; nothing is compared yet."""
    removable, greater_ids = [], set[str]()
    segments = rows.segments().values()
    for segment in sorted(segments, key=lambda segment: order(segment.name), reverse=True):
        if segment.ids and greater_ids.issuperset(segment.ids):
            removable.append(segment)
        greater_ids.update(segment.ids)
    return removable


def remove_redundant(rows: SegmentRows, segment: Segment) -> bool:
    """Remove a segment if all its rows lie in greater whole ones, as of now; whether it went."""
    rows.refresh()
    uncovered = set(segment.ids)
    for other in rows.segments().values():
        greater = order(other.name) > order(segment.name) and not uncovered.isdisjoint(other.ids)
        if greater and not damage(rows, other)[0]:
            uncovered.difference_update(other.ids)
    if not uncovered:
        rows.folder.remove([segment.name])
        rows.refresh()
    return not uncovered


def damage(rows: SegmentRows, segment: Segment) -> tuple[str, list[str]]:
    """What is wrong with a segment, in words, and ids of its bad rows; "" where nothing is.

    VanishedError where it is there no more: its rows are in a larger one.
    """
    bad = [
        names[row]
        for names, _, whole in checked_rows(rows, segment)
        for row in np.flatnonzero(~whole).tolist()
    ]
    if lost := segment.layout.rows - len(segment.ids):
        return f"is cut short: {lost} of {segment.layout.rows} rows are lost", bad
    if not is_whole(rows, segment):
        if segment.name not in rows.folder.sizes():
            raise VanishedError
        return "fails its checksum", bad
    if bad:
        return "is whole, but rows in it fail their checksums or are not finite", bad
    return "", []


def checked_rows(
    rows: SegmentRows, segment: Segment
) -> Iterator[tuple[Sequence[str], Vectors, Vectors]]:
    """A segment's rows a block at a time: ids (n), vectors (n, D), and which are whole (n,)."""
    step = rows_a_block(rows.kind.width, rows.kind.dtype)
    for start in range(0, len(segment.ids), step):
        ids = segment.ids[start : start + step]
        indices = np.arange(start, start + len(ids), dtype=np.int64)
        vectors, whole = rows.rows_of_segment(segment, indices)
        yield ids, vectors, whole
