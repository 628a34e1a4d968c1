"""Segments: rows of a shelf as one file, written once, never changed and named after its bytes.

    <sha256 of its bytes>-<rows>.safetensors
        vectors    (N, D) float16 or float32
        row_crc32  (N,) uint32 (../rows.py)
        image_id   (N, 32) uint8, always the last 32 N bytes
        metadata   format, layout, the fingerprint's digest

safetensors holds numbers and nothing that could run. All of a header follows from the name, the
shelf's fingerprint, width and type; so it is compared, not obeyed, and where each row lies is known
before anything is read. A header with a few flipped bits is still known for ours; a foreign one is
not, since it has another digest.

A shelf's segments lie in a folder here, read by plain calls, or in one at a URL, over fsspec. Both
give the same four things: sizes by name, parts of files, a new file whole, a file's removal.
"""

import hashlib
import itertools
import json
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.core.trees import parse_json
from agiqa.core.urls import shown
from agiqa.core.whole_files import sync_folder, write_file
from agiqa.store.files import disk_errors, open_own, require_own_folder, sizes_in
from agiqa.store.remote import Remote
from agiqa.store.rows import DTYPES, WIDEST, Vectors, id_bytes, row_checksums

SEGMENTS = "segments"  # the folder's name in a shelf's
ROWS_A_SEGMENT = 4096  # 32 MiB at 4096 float16, and no segment gets more
SEGMENT_BYTES = 32 << 20
MOST_ROWS = 1 << 16
MOST_BYTES = 2 << 30  # of a segment; ours have 64 MiB, and had 4096 rows of whatever width
FORMAT, LAYOUT = "agiqa-segment", "1"
ID_BYTES = 32
LONGEST_HEADER = 4096
_FLIPPED = 8  # bytes of a header that may be damaged
_SAFETENSORS = {"float16": "F16", "float32": "F32"}
_NAME = re.compile(r"([0-9a-f]{64})-([1-9][0-9]{0,4})\.safetensors")

Part = tuple[str, int, int]
"""A segment's name, and from which byte to which."""


def rows_of(name: str) -> int | None:
    """How many rows a segment of this name has; None where it is no segment's."""
    match = _NAME.fullmatch(name)
    return int(match[2]) if match and int(match[2]) <= MOST_ROWS else None


def order(name: str) -> tuple[int, str]:
    """Of two segments with the same row the greater one serves, and is never removed for the other.

    That no two may be removed for each other is what lets any number of merges run at once.
    """
    return rows_of(name) or 0, name


@dataclass(frozen=True)
class Kind:
    """What the segments of one shelf have in common."""

    digest: str  # of the fingerprint
    width: int
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Give the bytes of one vector."""
        return self.width * np.dtype(self.dtype).itemsize


def rows_a_segment(kind: Kind) -> int:
    """How many rows a segment gets where there are many; as large a one is merged no more."""
    return max(1, min(ROWS_A_SEGMENT, SEGMENT_BYTES // kind.row_bytes))


@dataclass(frozen=True)
class Layout:
    """Where everything lies in a segment, in bytes from its start."""

    kind: Kind
    rows: int

    @cached_property
    def header(self) -> bytes:
        """The first bytes, as safetensors writes them: their length, then JSON."""
        text = json.dumps(self._tree, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    @cached_property
    def starts(self) -> dict[str, int]:
        """Give the byte at which each array starts."""
        arrays = {name: array for name, array in self._tree.items() if name != "__metadata__"}
        return {name: len(self.header) + array["data_offsets"][0] for name, array in arrays.items()}

    @property
    def size(self) -> int:
        """Give the bytes of the whole segment."""
        return len(self.header) + self.rows * (self.kind.row_bytes + 4 + ID_BYTES)

    @cached_property
    def _tree(self) -> dict[str, Any]:
        kind, rows = self.kind, self.rows
        arrays = {
            "row_crc32": ("U32", [rows], 4 * rows),
            "vectors": (_SAFETENSORS[kind.dtype], [rows, kind.width], kind.row_bytes * rows),
            "image_id": ("U8", [rows, ID_BYTES], ID_BYTES * rows),
        }
        if kind.dtype == "float32":  # safetensors puts wide types first
            arrays = {name: arrays[name] for name in ("vectors", "row_crc32", "image_id")}
        metadata = {"format": FORMAT, "layout": LAYOUT, "fingerprint": kind.digest}
        tree: dict[str, Any] = {"__metadata__": metadata}
        start = 0
        for name, (dtype, shape, size) in arrays.items():
            tree[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + size]}
            start += size
        return tree

    def is_header(self, head: bytes) -> bool:
        """Tell whether a segment that begins with `head` is of this shelf, a few bytes damaged."""
        if len(head) != len(self.header):
            return False
        pair = np.frombuffer(head, np.uint8), np.frombuffer(self.header, np.uint8)
        if int(np.count_nonzero(pair[0] != pair[1])) <= _FLIPPED:
            return True
        try:  # metadata of several keys has no order
            same: bool = parse_json(head[8:], strict=True) == self._tree
            return same and head[:8] == self.header[:8]
        except ValueError:
            return False


def build(kind: Kind, ids: Sequence[str], vectors: Vectors) -> tuple[str, list[bytes | memoryview]]:
    """The name and the bytes, in parts, of a segment with rows (N, D)."""
    keys = id_bytes(ids)
    rows = np.ascontiguousarray(vectors, dtype=DTYPES[kind.dtype])
    layout = Layout(kind, len(keys))
    arrays: dict[str, bytes | memoryview] = {
        "row_crc32": np.array(row_checksums(keys, rows), dtype="<u4").tobytes(),
        "vectors": rows.reshape(-1).view(np.uint8).data,
        "image_id": b"".join(keys),
    }
    parts = [layout.header, *(arrays[name] for name in sorted(arrays, key=layout.starts.get))]  # type: ignore[arg-type]
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(part)
    return f"{sha256.hexdigest()}-{len(keys)}.safetensors", parts


def ids_in(data: bytes) -> list[str]:
    """The image ids in the last bytes of a segment; of one that is cut short, those left.

    Interned, as many shelves know the same images: ids are most of what an open shelf takes.
    """
    text = data.hex()
    return [sys.intern(text[at : at + 64]) for at in range(0, len(text) - 63, 64)]


def described(head: bytes) -> Kind | None:
    """Tell from a segment's first bytes which shelf it is of; None where they do not say.

    For shelves whose own description is lost.
    """
    length = int.from_bytes(head[:8], "little")
    if not 0 < length <= min(LONGEST_HEADER, len(head) - 8):
        return None
    try:
        tree = parse_json(head[8 : 8 + length], strict=True)
        dtypes = {name: dtype for dtype, name in _SAFETENSORS.items()}
        metadata, vectors = tree["__metadata__"], tree["vectors"]
        rows, width = vectors["shape"]
        kind = Kind(metadata["fingerprint"], width, dtypes[vectors["dtype"]])
    except (ValueError, KeyError, TypeError):
        return None
    plausible = type(rows) is int and type(width) is int and 1 <= width <= WIDEST
    if not plausible or not isinstance(kind.digest, str) or not 1 <= rows <= MOST_ROWS:
        return None
    return kind if tree == Layout(kind, rows)._tree else None


class LocalSegments:
    """A folder of this machine; AgiqaError for whatever the disk refuses, links and pipes."""

    def __init__(self, shelf: Path) -> None:
        self.folder = shelf / SEGMENTS

    @property
    def where(self) -> str:
        """Name the folder, as messages show it."""
        return str(self.folder.parent)

    def sizes(self) -> dict[str, int]:
        """Give the bytes of each segment by name."""
        with disk_errors("read", self.folder), suppress(FileNotFoundError):
            return sizes_in(self.folder, rows_of)
        return {}

    def read_parts(self, parts: Sequence[Part]) -> list[bytes | None]:
        """Read each part, less where a file is shorter; None where there is no such file."""
        blocks: list[bytes | None] = []
        with disk_errors("read", self.folder):
            for name, of_file in itertools.groupby(parts, itemgetter(0)):
                spans = [part[1:] for part in of_file]
                try:
                    with open_own(self.folder / name) as file:
                        size = os.fstat(file.fileno()).st_size
                        for start, stop in spans:  # no memory is taken for what it has not
                            file.seek(start)
                            blocks.append(file.read(max(0, min(stop, size) - start)))
                except FileNotFoundError:
                    blocks += [None] * len(spans)
        return blocks

    def write(self, name: str, parts: Sequence[bytes | memoryview]) -> None:
        """Put a new segment there: temporary name, fsync, rename, fsync of the folder."""
        with disk_errors("write features to", self.folder):
            if not self.folder.exists():
                self.folder.mkdir(exist_ok=True)
                sync_folder(self.folder.parent)
            require_own_folder(self.folder)
            write_file(self.folder / name, *parts)

    def remove(self, names: Sequence[str]) -> None:
        """Take segments away whose rows lie durably in others."""
        with disk_errors("free space in", self.folder):
            for name in names:
                (self.folder / name).unlink(missing_ok=True)
            sync_folder(self.folder)


class RemoteSegments:
    """A folder at a URL; RemoteError for whatever the server refuses."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote

    @property
    def where(self) -> str:
        """Name the folder, as messages show it."""
        return shown(self.remote.url)

    def sizes(self) -> dict[str, int]:
        """Give the bytes of each segment by name."""
        files = self.remote.files(SEGMENTS)
        return {name: file.size for name, file in files.items() if rows_of(name)}

    def read_parts(self, parts: Sequence[Part]) -> list[bytes | None]:
        """Read each part; None where there is no such file."""
        remote_parts = [(f"{SEGMENTS}/{name}", start, stop) for name, start, stop in parts]
        return self.remote.read_parts(remote_parts)

    def write(self, name: str, parts: Sequence[bytes | memoryview]) -> None:
        """Put a new segment there; on object stores it appears at once or not at all."""
        self.remote.write(f"{SEGMENTS}/{name}", b"".join(parts))

    def remove(self, names: Sequence[str]) -> None:
        """Nothing at a URL is ever removed: who may write there need not be allowed to delete."""


SegmentFolder = LocalSegments | RemoteSegments
