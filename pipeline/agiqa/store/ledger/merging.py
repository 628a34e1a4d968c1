"""Small segments into large ones, and taking away those whose rows lie in greater ones.

Any number of processes may do this at once, on machines that share no lock. What is removed lies
durably in a segment that this process has just written, or compared byte for byte with its name;
and that one is greater (segments.order), so that no two are ever removed for each other: of each
row the greatest whole segment stays.
"""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from agiqa.core.errors import AgiqaError
from agiqa.store.ledger.segment_rows import Segment, SegmentRows, VanishedError
from agiqa.store.ledger.segments import order, rows_a_segment
from agiqa.store.rows import Vectors, rows_a_block

logger = logging.getLogger(__name__)

MANY = 32  # segments of about one size are merged, so that each row is written few times
_PART = 1 << 20


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
    sizes: defaultdict[int, int] = defaultdict(int)
    for segment in small:
        sizes[segment.layout.rows.bit_length() // 4] += 1
    crowded = [size for size, count in sizes.items() if count >= MANY]
    if not everything:
        largest = max(crowded, default=-1)
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
