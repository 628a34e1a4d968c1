"""What the sides of a split share: prompts, byte-identical files, near-identical pictures.

Near-identical means: another file whose perceptual hash differs in at most NEAR of 64 bits. On
AGIQA-3K re-encoding, scaling, blur and a change of the aspect ratio cost at most 2 bits, cutting
2 % off the edges or a fifth more brightness at most 6 in 99 % of images; two different pictures
are never nearer than 8. Only rows and sides matter here, so any split can be audited.

The hash is `imagehash.phash` (the signs of the 8 × 8 lowest frequencies of a 32 × 32 grey DCT
against their median; Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions",
2010). Each is computed once and kept in the user's cache folder ($AGIQA_HASHES), keyed by
`image_id` and by the versions that could change it, so that a second audit reads no image.

All pairs of hashes are compared, in blocks: an exclusive or and NumPy's popcount over 512 hashes
against all later ones, so 20,000 images take 2·10⁸ operations of a few nanoseconds and 80 MiB.
Equal hashes are compared once, so a thousand copies of one picture cost nothing.
"""

import importlib.metadata
import os
import sqlite3
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import platformdirs
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from agiqa.core.errors import AgiqaError, one_line, printable, some
from agiqa.core.progress import track
from agiqa.data.datasets.groups import Relatives, Rows
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import BadImage, BadImagesError, ImageError, decode
from agiqa.data.splits.files import side_rows
from agiqa.data.splits.protocols import NEAR_COLUMN

BITS = 64
NEAR = 6  # bits of 64 that near-identical pictures differ in at most; measured as above
CHUNK = 256  # images between two commits: what a kill can cost
BLOCK = 512  # hashes compared with all later ones at a time
MOST_PAIRS = 5_000_000  # of distinct hashes; more says that the distance is too large
SEEN = "train and val"  # what a released training side holds before validation is taken out of it
BETWEEN = (("test", "train"), ("val", "train"), ("test", "val"), ("test", SEEN))
QUERY = 500  # image ids a query; SQLite takes at least 999


@dataclass(frozen=True)
class NearHashes:
    """Distinct hashes and which of them are near; rows of the data set point to them."""

    row: npt.NDArray[np.intp]  # (N,), the distinct hash of each row
    first: npt.NDArray[np.intp]  # (K,), pairs of distinct hashes, first < second
    second: npt.NDArray[np.intp]  # (K,)
    distance: npt.NDArray[np.uint8]  # (K,), bits that differ, at least 1


@dataclass(frozen=True)
class SideOverlap:
    """How many images of one side have a relative on another side of the same split."""

    protocol: str
    seed: int
    side: str  # whose images are counted
    other: str  # where their relatives stand
    images: int  # on the side
    same_prompt: int
    same_group: int  # as same_prompt where groups are prompts
    same_file: int
    near: int  # another file, a nearly identical picture


def audit(table: ImagesTable, splits: pd.DataFrame, near: NearHashes) -> list[SideOverlap]:
    """Count relatives across the sides of every split of one protocol.

    `near` says which images' hashes are: `near_hashes(perceptual_hashes(table), NEAR)`.
    """
    relatives = Relatives(table.frame)
    files = np.array(pd.factorize(table.frame["image_id"])[0], dtype=np.intp)
    protocol = str(splits["protocol"].iloc[0])
    sides = {
        seed: rows | {SEEN: np.concatenate([rows["train"], rows["val"]])}
        for seed, rows in side_rows(splits, table).items()
    }
    return [
        SideOverlap(
            protocol,
            seed,
            side,
            other_side,
            images=len(rows[side]),
            **relatives.counts(rows[side], rows[other_side]),
            near=int(_near(near, files, rows[side], rows[other_side]).sum()),
        )
        for seed, rows in sides.items()
        for side, other_side in BETWEEN
    ]


def _near(near: NearHashes, files: Rows, rows: Rows, other_rows: Rows) -> npt.NDArray[np.bool_]:
    """Tell for each of `rows` whether `other_rows` have another file with a near hash."""
    count = int(near.row.max()) + 1
    present = np.zeros(count, dtype=bool)
    present[near.row[other_rows]] = True
    reached = np.zeros(count, dtype=bool)  # hashes with a near but different one there
    reached[near.first[present[near.second]]] = True
    reached[near.second[present[near.first]]] = True
    low, high = np.full(count, len(files)), np.full(count, -1)  # of the files there with this hash
    np.minimum.at(low, near.row[other_rows], files[other_rows])
    np.maximum.at(high, near.row[other_rows], files[other_rows])
    hashes, own_files = near.row[rows], files[rows]
    alike = present[hashes] & ((low[hashes] != own_files) | (high[hashes] != own_files))
    return np.asarray(reached[hashes] | alike)


def hashes_file() -> Path:
    """Name the cache: one SQLite file for each pair of versions that hash alike."""
    configured = os.environ.get("AGIQA_HASHES")
    folder = Path(configured) if configured else platformdirs.user_cache_path("agiqa") / "hashes"
    versions = [importlib.metadata.version(name) for name in ("imagehash", "pillow")]
    return folder / f"phash{BITS}-imagehash{versions[0]}-pillow{versions[1]}.sqlite"


def perceptual_hashes(table: ImagesTable) -> npt.NDArray[np.uint64]:
    """Give one hash for each row of the table `(N,)`, from the cache where it has them.

    Raises:
        BadImagesError: images that changed since `prepare` or cannot be read; all others are
            hashed first.
        AgiqaError: a damaged cache.
    """
    ids = list(table.frame["image_id"])
    paths = dict(zip(ids, table.paths(), strict=True))  # of duplicates one
    with _cache(hashes_file()) as cache:
        hash_of: dict[str, bytes] = {}
        known = list(paths)
        for start in range(0, len(known), QUERY):
            batch = known[start : start + QUERY]
            marks = ",".join("?" * len(batch))
            select = f"SELECT * FROM hashes WHERE image_id IN ({marks})"
            hash_of.update(cache.execute(select, batch))
        missing = [image_id for image_id in paths if image_id not in hash_of]
        bad: list[ImageError] = []
        chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
        with ThreadPoolExecutor(thread_name_prefix="perceptual-hash") as pool:
            for chunk in track(chunks, "Perceptual hashes", total=len(missing), size=len):
                results = pool.map(lambda image_id: _hash(paths[image_id], image_id), chunk)
                by_id = dict(zip(chunk, results, strict=True))
                bad += [result for result in by_id.values() if isinstance(result, ImageError)]
                hashed = {key: result for key, result in by_id.items() if isinstance(result, bytes)}
                keep_hashes(cache, hashed)
                hash_of |= hashed
    if bad:
        raise BadImagesError(
            f"{len(bad)} images of '{table.name}' are not as they were at prepare: "
            f"{some([str(error) for error in bad], 3)}. Run `agiqa prepare` again; the others' "
            "hashes are kept.",
            [BadImage(printable(error.path), error.reason) for error in bad],
        )
    return np.array([int.from_bytes(hash_of[image_id], "big") for image_id in ids], dtype=np.uint64)


def near_hashes(hashes: npt.NDArray[np.uint64], distance: int) -> NearHashes:
    """Find all pairs of hashes `(N,)` with at most `distance` differing bits.

    Raises:
        AgiqaError: so many pairs that the distance can't mean "near-identical".
    """
    distinct, row = np.unique(hashes, return_inverse=True)
    pairs, total = [], 0
    for start in range(0, len(distinct), BLOCK):
        block = distinct[start : start + BLOCK]
        following = distinct[start:]
        bits = np.bitwise_count(block[:, None] ^ following[None, :])
        first, second = np.nonzero(bits <= distance)
        later = second > first  # each pair once, no hash with itself
        first, second = first[later], second[later]
        total += len(first)
        if total > MOST_PAIRS:
            raise AgiqaError(
                f"more than {MOST_PAIRS:,} pairs of images differ in at most {distance} of 64 "
                "bits: give a smaller --distance"
            )
        pairs.append((first + start, second + start, bits[first, second]))
    first, second, apart = map(np.concatenate, zip(*pairs, strict=True))
    return NearHashes(row.astype(np.intp), first, second, apart.astype(np.uint8))


def with_near(table: ImagesTable, distance: int) -> ImagesTable:
    """Give the table a column that names near-identical pictures, for `grouped` splits.

    Near is what a chain of pictures joins, each at most `distance` bits from the next.
    """
    near = near_hashes(perceptual_hashes(table), distance)
    count = int(near.row.max()) + 1
    graph = coo_array((np.ones(len(near.first)), (near.first, near.second)), shape=(count, count))
    labels = connected_components(graph, directed=False)[1]
    return replace(table, frame=table.frame.assign(**{NEAR_COLUMN: labels[near.row].astype(str)}))


def count_near(table: ImagesTable) -> str:
    """Say how many images `with_near` keeps together that neither prompt nor file does."""
    bundles = table.frame.groupby(NEAR_COLUMN)
    joined = bundles.filter(
        lambda images: (
            len(set(images["image_id"])) > 1
            and (len(set(images["group"])) > 1 or (images["group"] == "").all())
        )
    )
    return (
        f"{len(joined):,} near-identical images of {joined[NEAR_COLUMN].nunique():,} pictures, "
        "which no prompt or file joins"
    )


def keep_hashes(cache: sqlite3.Connection, hash_of: Mapping[str, bytes]) -> None:
    """Add hashes by `image_id`, 8 bytes each, to the cache; those that are there stay."""
    with cache:
        cache.executemany("INSERT OR IGNORE INTO hashes VALUES (?, ?)", hash_of.items())


def _hash(path: Path, expected: str) -> bytes | ImageError:
    import imagehash

    try:
        image = decode(path, expected)  # or the cache would hold another image's hash
    except ImageError as error:
        return error
    return np.packbits(imagehash.phash(image, hash_size=8).hash.ravel()).tobytes()


@contextmanager
def _cache(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the cache; what is wrong with it becomes one line."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=60)) as cache:
            with cache:
                cache.execute(
                    "CREATE TABLE IF NOT EXISTS hashes (image_id TEXT PRIMARY KEY, "
                    "hash BLOB NOT NULL CHECK (length(hash) = 8)) WITHOUT ROWID"
                )
            yield cache
    except sqlite3.DatabaseError as error:
        raise AgiqaError(
            f"{path}: the cache of perceptual hashes cannot be used ({one_line(error)}): remove "
            "it, or set AGIQA_HASHES to another folder; the hashes are computed again"
        ) from error
