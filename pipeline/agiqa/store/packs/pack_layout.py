"""What a pack holds in any format: metadata and three arrays, which vouch for each other.

pack.py writes and reads packs; pack_zarr.py and pack_hdf5.py put the arrays on the disk:

    vectors     (N, P, D) float16 or float32, chunks of 256 rows: P vectors for each image
    image_id    (N, 32) uint8, the id of each row (../row_ids.py): the sha256 of the image file's
                bytes, mixed with its own prompt where a vector's question holds it
    row_crc32   (N,) uint32, the CRC-32 of the row's id and vectors, little-endian

Metadata: format, layout, extractor, names (P), fingerprints (P), rows, width, dtype, and `check`,
the sha256 of the other metadata's canonical JSON. Where `extract` was told to leave bad images out,
`left_out` holds their ids. Vectors whose question holds the image's own prompt have the digest of
the rows' ids in `row_ids`, by name; without one, a row is of an image alone.
Vectors pass in blocks, so that no pack has to fit into memory.

A format says where the chunks of vectors lie; `PackRows` reads them by plain calls and compares
every row with its own checksum: what is whole comes out, what is damaged is named. The chunks'
checksums, which are the libraries', are `agiqa cache verify`'s business: they say nothing about a
row that its own does not.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from agiqa.core.errors import AgiqaError, printable
from agiqa.store.files import StrangeFileError, disk_errors, open_own
from agiqa.store.fingerprint import canonical, short
from agiqa.store.rows import (
    BLOCK_BYTES,
    DTYPES,
    WIDEST,
    DamagedRowsError,
    Vectors,
    check_vectors,
    id_bytes,
    row_checksums,
    several_at_once,
    whole_rows,
)

FORMAT, LAYOUT = "agiqa-pack", 1
ROWS_A_CHUNK = 256  # 4 MiB at 2 x 4096 float16: few files for DVC
IDS_A_CHUNK = 65536  # for image ids and checksums: 2 MiB and 256 KiB
MOST_JSON = 8 << 20  # bytes of metadata: some 100,000 images left out
ARRAYS = {"vectors": ROWS_A_CHUNK, "image_id": IDS_A_CHUNK, "row_crc32": IDS_A_CHUNK}  # rows
MOST_ROWS = 1 << 32
LONGEST_NAME = 200


class PackError(AgiqaError):
    """A pack that is absent, foreign, newer or damaged."""


class Rows(Protocol):
    """Vectors (N, P, D) wherever they are: an array, another pack, the ledger."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Give the vectors' shape (N, P, D)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Give the numbers' type, float16 or float32."""

    def __getitem__(self, rows: slice, /) -> Vectors:
        """The rows of a slice with start and stop."""


@dataclass(frozen=True, eq=False)
class Contents:
    """A pack to be written, whatever its format."""

    metadata: Mapping[str, Any]  # checked, or made by `write_pack`
    image_ids: Sequence[str]
    vectors: Rows

    def fill(self, create: Callable[[str], Any]) -> None:
        """Write the arrays, which `create` makes empty by their names, vectors block by block.

        Raises:
            AgiqaError: NaN or infinity, naming the image.
        """
        vectors, dtype, shape = create("vectors"), self.metadata["dtype"], self.vectors.shape
        image_id = np.empty((len(self.image_ids), 32), np.uint8)
        row_crc32 = np.empty(len(image_id), "<u4")
        for rows in row_blocks(shape, np.dtype(dtype).itemsize):
            block = np.ascontiguousarray(self.vectors[rows], dtype=DTYPES[dtype])
            check_vectors(self.image_ids[rows], block, shape[1:], dtype)
            keys = id_bytes(self.image_ids[rows])
            image_id[rows] = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32)
            row_crc32[rows] = row_checksums(keys, block)
            vectors[rows] = block
        create("image_id")[...] = image_id
        create("row_crc32")[...] = row_crc32


def row_blocks(shape: tuple[int, ...], itemsize: int) -> Iterator[slice]:
    """Whole chunks of rows, as many at a time as BLOCK_BYTES hold."""
    row_bytes = max(1, itemsize * int(np.prod(shape[1:], dtype=np.int64)))
    step = max(1, BLOCK_BYTES // (row_bytes * ROWS_A_CHUNK)) * ROWS_A_CHUNK
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def require_packable(
    names: Sequence[str],
    fingerprints: Sequence[Mapping[str, object]],
    image_ids: Sequence[str],
    vectors: Rows,
) -> None:
    """AgiqaError where these are no rows (N, P, D) of N different images and P vectors."""
    if not image_ids or len(set(image_ids)) != len(image_ids):
        raise AgiqaError(
            f"expected one or more different image ids, found {len(image_ids)} of which "
            f"{len(set(image_ids))} differ; pack each image once"
        )
    wanted, fits = FIELDS["names"]
    if not fits(list(names)) or len(fingerprints) != len(names):
        raise AgiqaError(
            f"expected one fingerprint for each of one or more {wanted}, found "
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


def verify_metadata(path: Path, metadata: Mapping[str, Any]) -> None:
    """PackError where the metadata is foreign, of a newer layout, or damaged.

    Each field has been looked at then: whoever can write a pack can write its checksum, too.
    """
    if metadata.get("format") != FORMAT:
        raise PackError(
            f"{path}: expected a pack of agiqa, found data of another program "
            f"(format {short(metadata.get('format'))}); name the pack that `agiqa extract` wrote"
        )
    layout = metadata.get("layout")
    if type(layout) is not int or layout != LAYOUT:
        newer = type(layout) is int and layout > LAYOUT
        advice = "upgrade agiqa" if newer else "run `agiqa extract` again"
        raise PackError(f"{path}: expected pack layout {LAYOUT}, found {short(layout)}; {advice}")
    fields = {key: value for key, value in metadata.items() if key != "check"}
    if metadata.get("check") != checksum(fields):
        raise damaged(path, "metadata that fails its checksum")
    for name, (wanted, fits) in FIELDS.items():
        if name not in metadata and name not in OPTIONAL:
            raise damaged(path, f"metadata without {name}")
        if name in metadata and not fits(metadata[name]):
            raise damaged(path, f"{name} {short(metadata[name])} where {wanted} must be")
    if strange := set(metadata).difference(FIELDS, ("format", "layout", "check")):
        raise damaged(path, f"a field {short(min(strange))} that no pack has")
    if len(metadata["fingerprints"]) != (count := len(metadata["names"])):
        raise damaged(path, f"{len(metadata['fingerprints'])} fingerprints of {count} vectors")
    if not set(metadata.get("row_ids", ())).issubset(metadata["names"]):
        raise damaged(path, "row_ids of vectors that it does not have")


# Fields of the metadata: what they must be, and whether a value is that.
FIELDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "extractor": ("a text", lambda value: isinstance(value, str)),
    "names": (
        "different names, none with a slash or a control character",
        lambda value: _are(value, is_name) and bool(value) and _differ(value),
    ),
    "fingerprints": ("objects", lambda value: _are(value, lambda item: isinstance(item, dict))),
    "rows": (f"a number from 1 to {MOST_ROWS:,}", lambda value: _is_number(value, MOST_ROWS)),
    "width": (f"a number from 1 to {WIDEST:,}", lambda value: _is_number(value, WIDEST)),
    "dtype": (" or ".join(DTYPES), lambda value: isinstance(value, str) and value in DTYPES),
    "left_out": (
        "different image ids",
        lambda value: _are(value, _is_digest) and _differ(value),
    ),
    "row_ids": (
        "an object of digests",
        lambda value: isinstance(value, dict) and all(map(_is_digest, value.values())),
    ),
}
OPTIONAL = ("left_out", "row_ids")


def is_name(value: object) -> bool:
    """Whether a vector may be called so: what is exported as a file's name leads nowhere else."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= LONGEST_NAME
        and value not in (".", "..")
        and not set(value).intersection("/\\")
        and printable(value) == value
    )


def _are(values: object, fits: Callable[[Any], bool]) -> bool:
    return isinstance(values, list) and all(map(fits, values))


def _is_number(value: object, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _differ(values: list[str]) -> bool:
    return len(set(values)) == len(values)


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def array_shapes(metadata: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    """The shape and dtype that each array must have by the metadata, which has been checked."""
    rows, vectors = metadata["rows"], len(metadata["names"])
    return {
        "vectors": ((rows, vectors, metadata["width"]), DTYPES[metadata["dtype"]]),
        "image_id": ((rows, 32), "|u1"),
        "row_crc32": ((rows,), "<u4"),
    }


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the disk refuses, and files that are a stranger's, into errors of the pack `path`.

    Raises:
        PackError: something in it is no regular file, or no real folder.
        AgiqaError: the disk cannot be read now.
    """
    try:
        with disk_errors("read the pack", path):
            yield
    except StrangeFileError as error:
        text = str(error)
        raise PackError(text if str(path) in text else f"{path}: {text}") from error


def no_pack(path: Path, kind: str, reason: str) -> PackError:
    """The error for what is no pack of this kind of file."""
    return PackError(
        f"{path}: expected {kind} pack of agiqa, found {reason}; "
        "name the pack that `agiqa extract` wrote, or run it again"
    )


def damaged(path: Path, problem: str) -> PackError:
    """The error for a pack whose parts do not fit together."""
    return PackError(
        f"{path}: expected a whole pack, found {problem}; delete it and run `agiqa extract`, "
        "which packs it again from the ledger"
    )


def row_ids_digest(row_ids: Sequence[str]) -> str:
    """The sha256 of the ledger's row ids, one for each row of the pack and in its order."""
    return hashlib.sha256(b"".join(id_bytes(row_ids))).hexdigest()


def checksum(metadata: Mapping[str, Any]) -> str:
    """The sha256 of a pack's metadata, but for its field `check`."""
    return hashlib.sha256(canonical(metadata).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class PackRows:
    """A pack as a format finds it, its structure as it must be; rows are checked as they are read.

    As a sequence of rows it gives whole ones or DamagedRowsError.
    """

    path: Path
    metadata: Mapping[str, Any]  # checked
    image_id: Vectors  # (N, 32)
    row_crc32: Vectors  # (N,)
    chunks: Sequence[tuple[Path, int] | None]  # of vectors: file, first byte; None: not there whole

    @cached_property
    def image_ids(self) -> tuple[str, ...]:
        """Give the ids of the rows (../row_ids.py)."""
        return tuple(key.tobytes().hex() for key in self.image_id)

    @property
    def by_prompt(self) -> bool:
        """Whether rows are of an image with its own prompt, not of an image alone."""
        return bool(self.metadata.get("row_ids"))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Give the vectors' shape (N, P, D)."""
        return self.metadata["rows"], len(self.metadata["names"]), self.metadata["width"]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Give the numbers' type, float16 or float32, little-endian."""
        return np.dtype(DTYPES[self.metadata["dtype"]])

    def __getitem__(self, rows: slice) -> Vectors:
        vectors, whole = self.read(rows)
        if not whole.all():
            raise self._damaged(rows.start + np.flatnonzero(~whole))
        return vectors

    def everything(self) -> Vectors:
        """Read all rows (N, P, D) in several threads; DamagedRowsError names those not whole."""
        absent = [
            np.arange(self.shape[0])[rows]
            for rows, chunk in zip(self.chunk_rows(), self.chunks, strict=True)
            if chunk is None
        ]
        if absent:  # before memory is taken for what is not there
            raise self._damaged(np.concatenate(absent))
        return self[slice(0, self.shape[0])]

    def blocks(
        self, wanted: Collection[str] | None = None
    ) -> Iterator[tuple[Sequence[str], Vectors]]:
        """Whole rows, or those of the wanted images: image ids, vectors (n, P, D)."""
        for rows in row_blocks(self.shape, self.dtype.itemsize):
            mask = np.array([wanted is None or name in wanted for name in self.image_ids[rows]])
            if mask.any():
                vectors, whole = self.read(rows)
                mask &= whole
                names = [self.image_ids[rows.start + row] for row in np.flatnonzero(mask)]
                yield names, vectors if mask.all() else vectors[mask]

    def chunk_rows(self) -> list[slice]:
        """Give the rows of each chunk as a slice."""
        starts = range(0, self.shape[0], ROWS_A_CHUNK)
        return [slice(start, min(start + ROWS_A_CHUNK, self.shape[0])) for start in starts]

    def read(self, rows: slice) -> tuple[Vectors, Vectors]:
        """Vectors (n, P, D) of rows, and which of them are whole (n,); others mean nothing."""
        vectors = np.empty((rows.stop - rows.start, *self.shape[1:]), self.dtype)
        whole = np.zeros(len(vectors), bool)

        def fill(number: int) -> None:
            start = max(rows.start, number * ROWS_A_CHUNK)
            stop = min(rows.stop, (number + 1) * ROWS_A_CHUNK)
            part = slice(start - rows.start, stop - rows.start)
            if (chunk := self.chunks[number]) is not None:
                with suppress(FileNotFoundError):
                    self._fill_from(chunk, vectors[part], whole[part], start)

        numbers = range(rows.start // ROWS_A_CHUNK, -(-rows.stop // ROWS_A_CHUNK))
        with (
            reading(self.path),
            several_at_once(vectors.nbytes) as at_once,
        ):
            list(at_once(fill, numbers))
        return vectors, whole

    def _fill_from(
        self, chunk: tuple[Path, int], vectors: Vectors, whole: Vectors, first: int
    ) -> None:
        """Read rows from `first` on that lie in one chunk."""
        file, offset = chunk
        with open_own(file) as opened:
            opened.seek(offset + first % ROWS_A_CHUNK * vectors[0].nbytes)
            if opened.readinto(vectors.reshape(-1).view(np.uint8).data) < vectors.nbytes:
                return
        rows = slice(first, first + len(vectors))
        keys = [key.tobytes() for key in self.image_id[rows]]
        whole[:] = whole_rows(keys, vectors, self.row_crc32[rows])

    def _damaged(self, rows: Vectors) -> DamagedRowsError:
        ids = [self.image_ids[row] for row in rows]
        return DamagedRowsError(
            f"{self.path}: expected {self.shape[0]} whole rows, found {len(ids)} damaged or "
            f"missing (first: row {rows[0]}, image {ids[0]}); run `agiqa extract`, which packs "
            "it again from the ledger",
            ids,
        )
