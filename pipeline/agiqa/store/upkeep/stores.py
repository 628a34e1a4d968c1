"""Every store there is: shelves of the ledger, packs under the cache folder, and who uses them.

Which runs were made from which vectors is known by the fingerprints in their provenance.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from agiqa.core.errors import AgiqaError
from agiqa.core.run_folders import provenance_files
from agiqa.core.trees import read_json
from agiqa.store import Fingerprint, digest
from agiqa.store.ledger.lock import writer_of
from agiqa.store.ledger.roots import find_shelves
from agiqa.store.ledger.segment_folders import SEGMENTS
from agiqa.store.ledger.shelf import Shelf
from agiqa.store.own_files import size_of
from agiqa.store.packs.pack import FORMATS, read_pack_metadata

SHELF, PACK = "shelf", "pack"


@dataclass(frozen=True)
class RunStores:
    """One run: what it read."""

    folder: Path
    dataset: str
    stores: tuple[frozenset[str], ...]  # digests of the fingerprints, store by store
    fingerprints: tuple[Fingerprint, ...]


@dataclass(frozen=True)
class Store:
    """A shelf or a pack; of one that cannot be read `problem` says why, and no more is known."""

    kind: str  # SHELF, PACK
    path: Path
    size: int  # bytes
    written: float  # seconds since 1970
    problem: str = ""
    rows: int = 0
    vectors: tuple[str, ...] = ()  # names; of a shelf those that packs give it, or none
    width: int = 0
    dtype: str = ""
    fingerprints: tuple[Fingerprint, ...] = ()
    writers: tuple[str, ...] = ()  # processes that write now, in words
    users: tuple[str, ...] = ()  # packs of a shelf by name, runs of a pack by folder

    @property
    def name(self) -> str:
        """Give a short name: the shelf's folder, or the pack with its data set's folder."""
        return self.path.name if self.kind == SHELF else "/".join(self.path.parts[-2:])

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """Give the digests of the fingerprints, in full."""
        return tuple(digest(fingerprint) for fingerprint in self.fingerprints)


def find_packs(caches: Sequence[Path]) -> list[Path]:
    """What is named like a pack in `caches` or a data set's folder in one; no hidden names."""
    names = [f"{folder}*{suffix}" for folder in ("", "*/") for suffix in FORMATS]
    paths = {path for cache in caches for name in names for path in cache.glob(name)}
    return sorted(p for p in paths if not p.name.startswith(".") and p.parent.suffix not in FORMATS)


def find_runs(folders: Iterable[Path]) -> tuple[list[RunStores], list[Path]]:
    """The runs below `folders`; and files that ought to say what a run read, and do not."""
    runs, unreadable = [], []
    for path in sorted({path for folder in folders for path in provenance_files(folder)}):
        try:
            tree = read_json(path)
            stores = [
                store["fingerprints"]
                for store in tree["stores"].values()
                if isinstance(store, Mapping) and "fingerprints" in store
            ]
            digests = tuple(frozenset(map(digest, fingerprints)) for fingerprints in stores)
            every = tuple(fingerprint for fingerprints in stores for fingerprint in fingerprints)
            runs.append(RunStores(path.parent, str(tree["dataset"]), digests, every))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            unreadable.append(path)
    return runs, unreadable


def survey(
    ledger: Path, caches: Sequence[Path], runs: Sequence[RunStores]
) -> tuple[list[Store], list[Store]]:
    """List all shelves in `ledger` and all packs under `caches`, with who uses them."""
    packs = [read_pack_store(path, runs) for path in find_packs(caches)]
    return [read_shelf_store(folder, packs) for folder in find_shelves(ledger)], packs


def read_shelf_store(folder: Path, packs: Sequence[Store] = ()) -> Store:
    """The shelf in `folder`; of `packs` those that have its vector use and name it."""
    try:
        shelf = Shelf.at(folder)
        rows, writer = len(shelf.ids()), writer_of(folder)
    except AgiqaError as error:
        problem = str(error).removeprefix(f"{folder}: ").removeprefix(f"{folder}/")
        return Store(SHELF, folder, _size(folder), _written(folder), problem)
    key = digest(shelf.fingerprint)
    pairs = [pair for pack in packs for pair in zip(pack.vectors, pack.digests, strict=True)]
    return Store(
        kind=SHELF,
        path=folder,
        size=_size(folder),
        written=_written(folder / SEGMENTS),
        rows=rows,
        vectors=tuple(dict.fromkeys(name for name, made_by in pairs if made_by == key)),
        width=shelf.width,
        dtype=shelf.dtype,
        fingerprints=(shelf.fingerprint,),
        writers=(writer,) if writer else (),
        users=tuple(pack.name for pack in packs if key in pack.digests),
    )


def read_pack_store(path: Path, runs: Sequence[RunStores] = ()) -> Store:
    """The pack `path`, used by those of `runs`, of its data set, that read what it has.

    That is vectors of its fingerprints, wherever their own copies of it were.
    """
    try:
        metadata = read_pack_metadata(path)
    except AgiqaError as error:
        problem = str(error).removeprefix(f"{path}: ")
        return Store(PACK, path, _size(path), _written(path), problem)
    digests, dataset = set(map(digest, metadata["fingerprints"])), path.parent.name
    users = [
        str(run.folder)
        for run in runs
        if run.dataset == dataset and any(store and store <= digests for store in run.stores)
    ]
    return Store(
        kind=PACK,
        path=path,
        size=_size(path),
        written=_written(path),
        rows=int(metadata["rows"]),
        vectors=tuple(metadata["names"]),
        width=int(metadata["width"]),
        dtype=str(metadata["dtype"]),
        fingerprints=tuple(metadata["fingerprints"]),
        users=tuple(users),
    )


def label(fingerprint: Mapping[str, Any]) -> str:
    """A vector in a few words out of its fingerprint, where no pack gives it a name."""
    prompt = fingerprint.get("prompt")
    parts = [str(fingerprint.get("extractor", "vector"))]
    if isinstance(prompt, Mapping):
        parts = [str(prompt.get("pooling", "")), f'"{prompt.get("text", "")}"']
        fingerprint = prompt
    elif isinstance(prompt, str):
        parts = [f'"{prompt}"']
    if "layer" in fingerprint:
        parts.insert(0, f"layer {fingerprint['layer']}")
    return " ".join(part for part in parts if part)


def _size(path: Path) -> int:
    try:
        return size_of(path)
    except OSError:
        return 0


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # a link to nothing
        return 0.0
