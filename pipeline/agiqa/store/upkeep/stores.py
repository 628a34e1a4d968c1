"""Every store there is: shelves of the ledger, packs under the cache folder, and who uses them.

Which runs were made from which vectors is known by the fingerprints in their provenance. Of one
store: which a user means, and all that is known of it without reading its rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from agiqa.core.errors import AgiqaError, some
from agiqa.core.run_folders import provenance_files
from agiqa.core.trees import read_json
from agiqa.store import Fingerprint, digest, local_copy
from agiqa.store.ledger.lock import writer_of
from agiqa.store.ledger.segments import SEGMENTS, rows_of
from agiqa.store.ledger.shelf import Shelf
from agiqa.store.ledger.shelf_folders import DESCRIPTION, find_shelves, read_description
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
        return Store(SHELF, folder, *_on_disk(folder), problem)
    key, (size, written) = digest(shelf.fingerprint), _on_disk(folder, folder / SEGMENTS)
    pairs = [pair for pack in packs for pair in zip(pack.vectors, pack.digests, strict=True)]
    return Store(
        kind=SHELF,
        path=folder,
        size=size,
        written=written,
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
        return Store(PACK, path, *_on_disk(path), str(error).removeprefix(f"{path}: "))
    digests, (size, written) = set(map(digest, metadata["fingerprints"])), _on_disk(path)
    users = [
        str(run.folder)
        for run in runs
        if run.dataset == path.parent.name
        and any(store and store <= digests for store in run.stores)
    ]
    return Store(
        kind=PACK,
        path=path,
        size=size,
        written=written,
        rows=int(metadata["rows"]),
        vectors=tuple(metadata["names"]),
        width=int(metadata["width"]),
        dtype=str(metadata["dtype"]),
        fingerprints=tuple(metadata["fingerprints"]),
        users=tuple(users),
    )


def choose_store(text: str, ledger: Path) -> tuple[str, Path]:
    """The kind and the path of the store that `text` names; of a pack's URL, that of a copy.

    AgiqaError where none is, or several shelves' names or digests begin so.
    """
    path = local_copy(text)
    if text and path.exists():
        if path.suffix in FORMATS:
            return PACK, path
        if (path / DESCRIPTION).exists() or (path / SEGMENTS).exists():
            return SHELF, path
        raise AgiqaError(
            f"{text}: expected a pack named *{' or *'.join(FORMATS)} or a shelf's folder, found "
            "neither; `agiqa cache ls` lists the stores"
        )
    if "/" in text or path.suffix in FORMATS or not text:
        raise AgiqaError(f"{text}: no such store; `agiqa cache ls` lists them")
    shelves = [folder for folder in find_shelves(ledger) if _begins(folder, text)]
    if not shelves:
        raise AgiqaError(
            f"{text}: neither a file here nor the beginning of a shelf's name or digest in "
            f"{ledger}; `agiqa cache ls` lists the stores"
        )
    if len(shelves) > 1:
        names = some([folder.name for folder in shelves])
        raise AgiqaError(
            f"{text}: expected one shelf, found {len(shelves)}: {names}; give more of it"
        )
    return SHELF, shelves[0]


def _begins(folder: Path, text: str) -> bool:
    short = folder.name.rpartition("-")[2]
    if folder.name.startswith(text) or short.startswith(text):
        return True
    if not text.startswith(short) or len(short) < 16:  # more than the folder's name has
        return False
    try:
        return digest(read_description(folder).fingerprint).startswith(text)
    except AgiqaError:
        return False


def details(
    kind: str, path: Path, caches: Sequence[Path], runs: Sequence[Path]
) -> tuple[Store, dict[str, Any]]:
    """The store with its users, and what only its kind has: segments, or layout and left out.

    AgiqaError where it is foreign or damaged.
    """
    all_runs, _ = find_runs(runs)
    if kind != SHELF:
        metadata = read_pack_metadata(path)
        keys = ("format", "layout", "extractor", "check", "left_out")
        extra = {key: metadata[key] for key in keys if key in metadata}
        return read_pack_store(path, all_runs), extra
    sizes = Shelf.at(path).files.sizes()
    segments = [{"file": n, "rows": rows_of(n), "bytes": size} for n, size in sorted(sizes.items())]
    packs = [read_pack_store(pack, all_runs) for pack in find_packs(caches)]
    shelf = read_shelf_store(path, packs)
    through = [run for pack in packs if pack.name in shelf.users for run in pack.users]
    users = (*shelf.users, *dict.fromkeys(through))
    return replace(shelf, users=users), {"segments": segments}


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


def _on_disk(path: Path, written: Path | None = None) -> tuple[int, float]:
    """How large a store is, and when it, or what is in it, was written; 0 where unknown."""
    size, moment = 0, 0.0
    with suppress(OSError):
        size = size_of(path)
    with suppress(OSError):
        moment = (written or path).stat().st_mtime
    return size, moment
