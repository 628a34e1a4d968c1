"""Perceptual hashes of a data set's images: 64 bits that survive re-encoding and resizing.

The hash is `imagehash.phash` (the signs of the 8 × 8 lowest frequencies of a 32 × 32 grey DCT
against their median; Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions",
2010). Each is computed once and kept in the user's cache folder ($AGIQA_HASHES), keyed by
`image_id` and by the versions that could change it, so that a second audit reads no image.
"""

import importlib.metadata
import os
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import platformdirs

from agiqa.core.errors import AgiqaError, one_line, printable, some
from agiqa.core.progress import track
from agiqa.data.datasets.table import ImagesTable
from agiqa.data.images import BadImage, BadImagesError, ImageError, decode

BITS = 64
CHUNK = 256  # images between two commits: what a kill can cost
QUERY = 500  # image ids a query; SQLite takes at least 999


def hashes_file() -> Path:
    """The cache: one SQLite file for each pair of versions that hash alike."""
    chosen = os.environ.get("AGIQA_HASHES")
    folder = Path(chosen) if chosen else platformdirs.user_cache_path("agiqa") / "hashes"
    versions = [importlib.metadata.version(name) for name in ("imagehash", "pillow")]
    return folder / f"phash{BITS}-imagehash{versions[0]}-pillow{versions[1]}.sqlite"


def perceptual_hashes(table: ImagesTable, workers: int | None = None) -> npt.NDArray[np.uint64]:
    """One hash for each row of the table `(N,)`, from the cache where they are there.

    Raises:
        BadImagesError: images that changed since `prepare` or cannot be read; all others are
            hashed first.
        AgiqaError: a damaged cache.
    """
    ids = list(table.frame["image_id"])
    paths = dict(zip(ids, table.paths(), strict=True))  # of duplicates one
    with _cache(hashes_file()) as cache:
        known = _known(cache, list(paths))
        missing = [each for each in paths if each not in known]
        bad: list[ImageError] = []
        chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
        with ThreadPoolExecutor(workers, thread_name_prefix="perceptual-hash") as pool:
            for chunk in track(chunks, "Perceptual hashes", total=len(missing), size=len):
                made = pool.map(lambda name: _hash(paths[name], name), chunk)
                hashed: dict[str, bytes] = {}
                for name, found in zip(chunk, made, strict=True):
                    if isinstance(found, ImageError):
                        bad.append(found)
                    else:
                        hashed[name] = found
                keep_hashes(cache, list(hashed), list(hashed.values()))
                known |= hashed
    if bad:
        raise BadImagesError(
            f"{len(bad)} images of '{table.name}' are not as they were at prepare: "
            f"{some([str(error) for error in bad], 3)}. Run `agiqa prepare` again; the others' "
            "hashes are kept.",
            [BadImage(printable(error.path), error.reason) for error in bad],
        )
    return np.array([int.from_bytes(known[each], "big") for each in ids], dtype=np.uint64)


def keep_hashes(cache: sqlite3.Connection, ids: Sequence[str], hashes: Sequence[bytes]) -> None:
    """Add hashes, 8 bytes each, to the cache; those that are there stay."""
    with cache:
        cache.executemany(
            "INSERT OR IGNORE INTO hashes VALUES (?, ?)", zip(ids, hashes, strict=True)
        )


def _hash(path: Path, expected: str) -> bytes | ImageError:
    import imagehash

    try:
        image = decode(path, expected)  # or the cache would hold another image's hash
    except ImageError as error:
        return error
    return np.packbits(imagehash.phash(image, hash_size=8).hash.ravel()).tobytes()


def _known(cache: sqlite3.Connection, ids: Sequence[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for start in range(0, len(ids), QUERY):
        part = ids[start : start + QUERY]
        marks = ",".join("?" * len(part))
        found.update(cache.execute(f"SELECT * FROM hashes WHERE image_id IN ({marks})", part))
    return found


@contextmanager
def _cache(path: Path) -> Iterator[sqlite3.Connection]:
    """The open cache; what is wrong with it becomes one line."""
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
