"""Ways to keep vectors on a disk: ours, and what one would use instead (see store.py)."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agiqa.store import FeatureStore, Shelf, read_pack, write_pack

APPENDED = 16  # rows at a time
SAFETENSORS_ROWS = 2048  # in a file
COMMITTED = 256  # rows in a transaction of LMDB, as in a chunk of ours
PROMPTS = ("quality", "coherence")
FINGERPRINTS = [{"extractor": "benchmark", "prompt": name} for name in PROMPTS]


@dataclass(frozen=True)
class Data:
    """Vectors `(N, P, D)` float16 and their image ids."""

    ids: list[str]
    vectors: np.ndarray

    def appended(self) -> Iterator[slice]:
        """The rows as an extraction adds them."""
        for start in range(0, len(self.ids), APPENDED):
            yield slice(start, min(start + APPENDED, len(self.ids)))


Rows = Callable[[list[int]], np.ndarray]


@dataclass(frozen=True)
class Way:
    """A way to keep vectors. `load` gives what reads rows by their numbers."""

    name: str
    write: Callable[[Path, Data], None]
    load: Callable[[Path, Data], Rows]
    first: Callable[[Path, Data], object]  # opens and reads one row
    needs: str = ""  # a package


def _write_ledger(folder: Path, data: Data) -> None:
    """Both prompts' shelves, as `extract` fills them."""
    shelves = [Shelf.open(folder, each, data.vectors.shape[2]) for each in FINGERPRINTS]
    with shelves[0].writer() as quality, shelves[1].writer() as coherence:
        for rows in data.appended():
            quality.add(data.ids[rows], data.vectors[rows, 0])
            coherence.add(data.ids[rows], data.vectors[rows, 1])


def _load_ledger(folder: Path, data: Data) -> Rows:
    shelves = [Shelf.open(folder, each, data.vectors.shape[2]) for each in FINGERPRINTS]
    found = [shelf.read(data.ids) for shelf in shelves]
    return lambda rows: np.stack([vectors[rows] for vectors in found], axis=1)


def _first_of_ledger(folder: Path, data: Data) -> object:
    shelves = [Shelf.open(folder, each, data.vectors.shape[2]) for each in FINGERPRINTS]
    return [shelf.read(data.ids[:1]) for shelf in shelves]


def _pack(suffix: str) -> Way:
    def write(folder: Path, data: Data) -> None:
        write_pack(
            folder / f"pack{suffix}", "benchmark", PROMPTS, FINGERPRINTS, data.ids, data.vectors
        )

    def open_pack(folder: Path) -> FeatureStore:
        return read_pack(folder / f"pack{suffix}")

    def load(folder: Path, data: Data) -> Rows:
        store = open_pack(folder)
        return lambda rows: store.rows([data.ids[row] for row in rows])

    return Way(f"our pack, {suffix}", write, load, lambda folder, _: open_pack(folder).vectors[0])


def _write_memmap(folder: Path, data: Data) -> None:
    path = folder / "vectors.npy"
    kept = np.lib.format.open_memmap(path, "w+", data.vectors.dtype, data.vectors.shape)
    for rows in data.appended():
        kept[rows] = data.vectors[rows]
    kept.flush()


def _map_memmap(folder: Path) -> np.ndarray:
    return np.load(folder / "vectors.npy", mmap_mode="r")


def _load_memmap(folder: Path, data: Data) -> Rows:
    found = np.array(_map_memmap(folder))
    return lambda rows: found[rows]


def _write_safetensors(folder: Path, data: Data) -> None:
    from safetensors.numpy import save_file

    for start in range(0, len(data.ids), SAFETENSORS_ROWS):
        part = {"vectors": data.vectors[start : start + SAFETENSORS_ROWS]}
        save_file(part, folder / f"{start:08d}.safetensors")
    os.sync()


def _load_safetensors(folder: Path, data: Data) -> Rows:
    from safetensors.numpy import load_file

    parts = [load_file(path)["vectors"] for path in sorted(folder.iterdir())]
    found = np.concatenate(parts)
    return lambda rows: found[rows]


def _first_of_safetensors(folder: Path, data: Data) -> object:
    from safetensors import safe_open

    with safe_open(folder / f"{0:08d}.safetensors", "np") as file:
        return file.get_slice("vectors")[:1]


def _lmdb_environment(folder: Path, size: int = 1 << 30, **more: Any) -> Any:
    import lmdb

    return lmdb.open(str(folder), map_size=size, **more)


def _write_lmdb(folder: Path, data: Data) -> None:
    with _lmdb_environment(folder, 2 * data.vectors.nbytes + (1 << 26)) as environment:
        for start in range(0, len(data.ids), COMMITTED):
            with environment.begin(write=True) as transaction:
                for row in range(start, min(start + COMMITTED, len(data.ids))):
                    key = bytes.fromhex(data.ids[row])
                    transaction.put(key, data.vectors[row].tobytes())


def _load_lmdb(folder: Path, data: Data) -> Rows:
    environment = _lmdb_environment(folder, readonly=True, lock=False)
    shape, dtype = data.vectors.shape[1:], data.vectors.dtype
    with environment.begin(buffers=True) as transaction:
        keys = [bytes.fromhex(name) for name in data.ids]
        found = np.stack([np.frombuffer(transaction.get(key), dtype) for key in keys])
    return lambda rows: found[rows].reshape(-1, *shape)


def _first_of_lmdb(folder: Path, data: Data) -> object:
    with (
        _lmdb_environment(folder, readonly=True, lock=False) as environment,
        environment.begin() as transaction,
    ):
        return transaction.get(bytes.fromhex(data.ids[0]))


def _write_pt(folder: Path, data: Data) -> None:
    import torch

    for row, name in enumerate(data.ids):
        for place, prompt in enumerate(PROMPTS):
            torch.save(torch.tensor(data.vectors[row, place]), folder / f"{name}_{prompt}.pt")
    os.sync()


def _read_pt(folder: Path, name: str) -> np.ndarray:
    import torch

    paths = [folder / f"{name}_{prompt}.pt" for prompt in PROMPTS]
    return np.stack([torch.load(path, weights_only=True).numpy() for path in paths])


def _load_pt(folder: Path, data: Data) -> Rows:
    found = np.stack([_read_pt(folder, name) for name in data.ids])
    return lambda rows: found[rows]


WAYS = (
    Way("our ledger", _write_ledger, _load_ledger, _first_of_ledger),
    _pack(".zarr"),
    _pack(".h5"),
    Way(
        "memory map .npy",
        _write_memmap,
        _load_memmap,
        lambda folder, _: _map_memmap(folder)[:1] + 0,
    ),
    Way("safetensors, 2048 rows", _write_safetensors, _load_safetensors, _first_of_safetensors),
    Way("LMDB", _write_lmdb, _load_lmdb, _first_of_lmdb, needs="lmdb"),
    Way(
        ".pt, image and prompt",
        _write_pt,
        _load_pt,
        lambda folder, data: _read_pt(folder, data.ids[0]),
    ),
)
