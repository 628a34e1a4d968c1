"""What a pack holds in any format: metadata and three arrays, which vouch for each other.

pack.py writes and reads packs; pack_zarr.py and pack_hdf5.py put the arrays on the disk:

    vectors     (N, P, D) float16 or float32, chunks of 256 rows: P vectors for each image
    image_id    (N, 32) uint8, the sha256 of each image file's bytes
    row_crc32   (N,) uint32, the CRC-32 of the row's image id and vectors, little-endian

Metadata: format, layout, extractor, names (P), fingerprints (P), rows, width, dtype, and `check`,
the sha256 of the other metadata's canonical JSON. Where `extract` was told to leave bad images out,
`left_out` holds their ids. Vectors whose rows the ledger does not know by the image id alone (their
question holds the image's own prompt) have the digest of their row ids in `row_ids`, by name.
Vectors pass in blocks, so that no pack has to fit into memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from agiqa.errors import AgiqaError
from agiqa.feature_store.chunks import (
    DTYPES,
    IDS_A_CHUNK,
    ROWS_A_CHUNK,
    DamagedRowsError,
    Vectors,
    check_vectors,
    id_bytes,
    row_checksums,
)
from agiqa.feature_store.fingerprint import Fingerprint, canonical, plain

FORMAT, LAYOUT = "agiqa-pack", 1
ARRAYS = {"vectors": ROWS_A_CHUNK, "image_id": IDS_A_CHUNK, "row_crc32": IDS_A_CHUNK}  # rows
BLOCK_BYTES = 32 << 20  # of vectors in memory at a time, where 256 rows are not more


class PackError(AgiqaError):
    """A pack that is absent, foreign, newer or damaged."""


class Rows(Protocol):
    """Vectors (N, P, D) wherever they are: an array, a memory map, the ledger."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, P, D)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """float16 or float32."""

    def __getitem__(self, rows: slice, /) -> Vectors:
        """The rows of a slice with start and stop."""


@dataclass(frozen=True, eq=False)
class Contents:
    """A pack to be written. Take `blocks` once, then the checksums are there."""

    metadata: Mapping[str, Any]
    image_id: Vectors
    vectors: Rows
    row_crc32: Vectors = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "row_crc32", np.zeros(len(self.image_id), dtype="<u4"))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, P, D)."""
        wanted = self.metadata
        return wanted["rows"], len(wanted["names"]), wanted["width"]

    def blocks(self) -> Iterator[tuple[slice, Vectors]]:
        """Rows after rows (n, P, D), little-endian and checked, and where they belong.

        Raises:
            AgiqaError: NaN or infinity, naming the image.
        """
        dtype = self.metadata["dtype"]
        for rows in row_blocks(self.shape, np.dtype(dtype).itemsize):
            block = np.ascontiguousarray(self.vectors[rows], dtype=DTYPES[dtype])
            keys = [row.tobytes() for row in self.image_id[rows]]
            check_vectors([key.hex() for key in keys], block, self.shape[1:], dtype)
            self.row_crc32[rows] = row_checksums(keys, block)
            yield rows, block


@dataclass(frozen=True, eq=False)
class Stored:
    """A pack's arrays as its format found them, unchecked."""

    image_id: Vectors
    row_crc32: Vectors
    shape: tuple[int, ...]  # of the vectors
    dtype: np.dtype[Any]
    read: Callable[[slice], Vectors]  # PackError where a chunk fails its checksum


def row_blocks(shape: tuple[int, ...], itemsize: int) -> Iterator[slice]:
    """Whole chunks of rows, as many at a time as BLOCK_BYTES hold."""
    row_bytes = max(1, itemsize * int(np.prod(shape[1:], dtype=np.int64)))
    step = max(1, BLOCK_BYTES // (row_bytes * ROWS_A_CHUNK)) * ROWS_A_CHUNK
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def build(
    extractor: str,
    names: Sequence[str],
    fingerprints: Sequence[Fingerprint],
    image_ids: Sequence[str],
    vectors: Rows,
    left_out: Sequence[str] = (),
    row_ids: Mapping[str, str] | None = None,
) -> Contents:
    """Check what is to be packed, but for its numbers; AgiqaError for what does not fit."""
    if not image_ids or len(set(image_ids)) != len(image_ids):
        raise AgiqaError(
            f"expected one or more different image ids, found {len(image_ids)} of which "
            f"{len(set(image_ids))} differ; pack each image once"
        )
    if not names or len(set(names)) != len(names) or len(fingerprints) != len(names):
        raise AgiqaError(
            f"expected one fingerprint for each of one or more different names, found "
            f"{len(fingerprints)} fingerprints for the names {', '.join(names)}; correct the call"
        )
    dtype, shape = str(vectors.dtype.newbyteorder("=")), vectors.shape
    if len(shape) != 3 or shape[2] < 1 or dtype not in DTYPES:
        raise AgiqaError(
            f"expected vectors (images, names, width) of {' or '.join(DTYPES)}, found shape "
            f"{shape} of {vectors.dtype}; correct the extractor"
        )
    if shape[:2] != (len(image_ids), len(names)):
        raise AgiqaError(
            f"expected vectors of shape {(len(image_ids), len(names), shape[2])}, found {shape}; "
            "give one row of the declared width for each image id"
        )
    metadata: dict[str, Any] = {
        "format": FORMAT,
        "layout": LAYOUT,
        "extractor": extractor,
        "names": list(names),
        "fingerprints": [plain(fingerprint) for fingerprint in fingerprints],
        "rows": len(image_ids),
        "width": int(shape[2]),
        "dtype": dtype,
    }
    if left_out:
        metadata["left_out"] = sorted(left_out)
    if row_ids:
        metadata["row_ids"] = dict(row_ids)
    return Contents(
        metadata={**metadata, "check": _check(metadata)},
        image_id=np.frombuffer(b"".join(id_bytes(image_ids)), dtype=np.uint8).reshape(-1, 32),
        vectors=vectors,
    )


def verify_metadata(path: Path, metadata: Mapping[str, Any]) -> None:
    """PackError where the metadata is foreign, of a newer layout, or damaged."""
    if metadata.get("format") != FORMAT:
        raise PackError(
            f"{path}: expected a pack of agiqa, found data of another program "
            f"(format {metadata.get('format')!r}); name the pack that `agiqa extract` wrote"
        )
    layout = metadata.get("layout")
    if layout != LAYOUT:
        newer = isinstance(layout, int) and layout > LAYOUT
        advice = "upgrade agiqa" if newer else "run `agiqa extract` again"
        raise PackError(f"{path}: expected pack layout {LAYOUT}, found {layout!r}; {advice}")
    rest = {key: value for key, value in metadata.items() if key != "check"}
    if metadata.get("check") != _check(rest):
        raise damaged(path, "metadata that fails its checksum")


def verify_arrays(path: Path, metadata: Mapping[str, Any], stored: Stored) -> None:
    """PackError where an array's shape or dtype is not what the metadata says."""
    rows = metadata["rows"]
    wanted = {
        "vectors": ((rows, len(metadata["names"]), metadata["width"]), metadata["dtype"]),
        "image_id": ((rows, 32), "uint8"),
        "row_crc32": ((rows,), "uint32"),
    }
    found = {
        "vectors": (stored.shape, stored.dtype),
        "image_id": (stored.image_id.shape, stored.image_id.dtype),
        "row_crc32": (stored.row_crc32.shape, stored.row_crc32.dtype),
    }
    for name, (shape, dtype) in found.items():
        if (shape, dtype) != (wanted[name][0], np.dtype(wanted[name][1])):
            raise damaged(path, f"{name} of shape {shape}, {dtype}")


def copy_rows(path: Path, stored: Stored, vectors: Vectors) -> None:
    """Fill `vectors` (N, P, D) from the pack, each row checked.

    Raises:
        DamagedRowsError: names the rows that fail their checksums, the first in its message.
        PackError: a chunk fails its own.
    """
    bad: list[int] = []
    for rows in row_blocks(vectors.shape, vectors.itemsize):
        vectors[rows] = stored.read(rows)
        keys = [row.tobytes() for row in stored.image_id[rows]]
        found = np.array(row_checksums(keys, vectors[rows]), dtype=np.uint32)
        bad += (rows.start + np.flatnonzero(found != stored.row_crc32[rows])).tolist()
    if bad:
        ids = [stored.image_id[row].tobytes().hex() for row in bad]
        raise DamagedRowsError(
            f"{path}: expected {len(vectors)} whole rows, found {len(bad)} damaged or missing "
            f"(first: row {bad[0]}, image {ids[0]}); run `agiqa extract`, which packs it again "
            "from the ledger",
            ids,
        )


def damaged(path: Path, found: str) -> PackError:
    """The error for a pack whose parts do not fit together."""
    return PackError(
        f"{path}: expected a whole pack, found {found}; delete it and run `agiqa extract`, "
        "which packs it again from the ledger"
    )


def row_ids_digest(row_ids: Sequence[str]) -> str:
    """The sha256 of the ledger's row ids, one for each row of the pack and in its order."""
    return hashlib.sha256(b"".join(id_bytes(row_ids))).hexdigest()


def _check(metadata: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(metadata).encode()).hexdigest()
