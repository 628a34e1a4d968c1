"""Image ids and vectors that any process can make again, and the files of stores."""

import hashlib
from pathlib import Path

import numpy as np

from agiqa.store import Shelf


def make_ids(count: int, salt: str = "") -> list[str]:
    return [hashlib.sha256(f"{salt}{row}".encode()).hexdigest() for row in range(count)]


def make_vectors(count: int, *shape: int, dtype: str = "float16", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(dtype)


def add_rows(shelf: Shelf, ids: list[str], vectors: np.ndarray) -> Shelf:
    with shelf.writer() as writer:
        writer.add(ids, vectors)
    return shelf


def right_rows(shelf: Shelf, ids: list[str], vectors: np.ndarray) -> set[str]:
    """Ids of the rows that a shelf gives; each of them is that of `vectors`."""
    there = sorted(shelf.ids() - set(shelf.damaged()))
    np.testing.assert_array_equal(shelf.read(there), vectors[[ids.index(name) for name in there]])
    return set(there)


def files(path: Path) -> dict[str, bytes]:
    """Every file by its name inside; a pack may be one file or a folder."""
    paths = [path] if path.is_file() else [inner for inner in path.rglob("*") if inner.is_file()]
    return {str(inner.relative_to(path)): inner.read_bytes() for inner in paths}


def flip(path: Path, *places: int) -> None:
    """Flip a bit of each of these bytes."""
    data = bytearray(path.read_bytes())
    for place in places:
        data[place] ^= 4
    path.write_bytes(data)


def flip_rows(segment: Path, width: int, *rows: int) -> None:
    """Flip a bit of each of these rows of a segment of float16."""
    count = int(segment.stem.rpartition("-")[2])
    flip(segment, *(row * width * 2 - count * (width * 2 + 32) for row in rows))


class Planted:
    """Leaves a file behind when a pickle of it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)
