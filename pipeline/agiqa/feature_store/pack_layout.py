"""What a pack holds in any format: metadata and three arrays, which vouch for each other.

pack.py builds and reads `Contents`; pack_zarr.py and pack_hdf5.py put it on the disk. Arrays:

    vectors     (N, P, D) float16 or float32, chunks of 256 rows: P vectors for each image
    image_id    (N, 32) uint8, the sha256 of each image file's bytes
    row_crc32   (N,) uint32, the CRC-32 of the row's image id and vectors, little-endian

Metadata: format, layout, extractor, names (P), fingerprints (P), rows, width, dtype, and `check`,
the sha256 of the other metadata's canonical JSON. Where `extract` was told to leave bad images out,
`left_out` holds their ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


class PackError(AgiqaError):
    """A pack that is absent, foreign, newer or damaged."""


@dataclass(frozen=True, eq=False)
class Contents:
    """A pack in memory."""

    metadata: Mapping[str, Any]
    vectors: Vectors
    image_id: Vectors
    row_crc32: Vectors


def build(
    extractor: str,
    names: Sequence[str],
    fingerprints: Sequence[Fingerprint],
    image_ids: Sequence[str],
    vectors: Vectors,
    left_out: Sequence[str] = (),
) -> Contents:
    """Check what is to be packed and compute its checksums; AgiqaError for what does not fit."""
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
    dtype = str(vectors.dtype.newbyteorder("="))
    if vectors.ndim != 3 or vectors.shape[2] < 1 or dtype not in DTYPES:
        raise AgiqaError(
            f"expected vectors (images, names, width) of {' or '.join(DTYPES)}, found shape "
            f"{vectors.shape} of {vectors.dtype}; correct the extractor"
        )
    check_vectors(image_ids, vectors, (len(names), vectors.shape[2]), dtype)
    keys = id_bytes(image_ids)
    metadata: dict[str, Any] = {
        "format": FORMAT,
        "layout": LAYOUT,
        "extractor": extractor,
        "names": list(names),
        "fingerprints": [plain(fingerprint) for fingerprint in fingerprints],
        "rows": len(image_ids),
        "width": int(vectors.shape[2]),
        "dtype": dtype,
    }
    if left_out:
        metadata["left_out"] = sorted(left_out)
    return Contents(
        metadata={**metadata, "check": _check(metadata)},
        vectors=np.ascontiguousarray(vectors, dtype=DTYPES[dtype]),
        image_id=np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, 32),
        row_crc32=np.array(row_checksums(keys, vectors), dtype="<u4"),
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


def verify_arrays(path: Path, contents: Contents) -> tuple[str, ...]:
    """The image ids of a pack, each row checked; DamagedRowsError names the first bad one."""
    wanted = contents.metadata
    rows = wanted["rows"]
    shapes = {
        "vectors": ((rows, len(wanted["names"]), wanted["width"]), wanted["dtype"]),
        "image_id": ((rows, 32), "uint8"),
        "row_crc32": ((rows,), "uint32"),
    }
    for name, (shape, dtype) in shapes.items():
        array: Vectors = getattr(contents, name)
        if array.shape != shape or array.dtype != np.dtype(dtype):
            raise damaged(path, f"{name} of shape {array.shape}, {array.dtype}")
    keys = [row.tobytes() for row in contents.image_id]
    found = np.array(row_checksums(keys, contents.vectors), dtype=np.uint32)
    if len(bad := np.flatnonzero(found != contents.row_crc32)):
        ids = [keys[row].hex() for row in bad.tolist()]
        raise DamagedRowsError(
            f"{path}: expected {rows} whole rows, found {len(bad)} damaged or missing (first: row "
            f"{bad[0]}, image {ids[0]}); run `agiqa extract`, which packs it again from the ledger",
            ids,
        )
    return tuple(key.hex() for key in keys)


def damaged(path: Path, found: str) -> PackError:
    """The error for a pack whose parts do not fit together."""
    return PackError(
        f"{path}: expected a whole pack, found {found}; delete it and run `agiqa extract`, "
        "which packs it again from the ledger"
    )


def _check(metadata: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(metadata).encode()).hexdigest()
