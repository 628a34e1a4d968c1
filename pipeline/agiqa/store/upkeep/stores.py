"""Every store there is: shelves of the ledger, packs under the cache folder, and who uses them.

Which runs were made from which vectors is known by the fingerprints in their provenance. Of one
store: which a user means, and all that is known of it without reading its rows.

And what of them can be freed, and freeing it: `agiqa cache gc`. What holds no valid row may always
go. A shelf with rows cost somebody's GPU; it goes only where it was asked for by `unused`, nothing
in sight uses it, and nobody has written to it for long.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from agiqa.core.errors import AgiqaError, some
from agiqa.core.run_folders import provenance_files
from agiqa.core.trees import read_json
from agiqa.core.whole_files import PARTIAL, sync_folder
from agiqa.store import Fingerprint, digest, local_copy
from agiqa.store.files import STALE_SECONDS, disk_errors, size_of
from agiqa.store.ledger.lock import sole_writer, writer_of
from agiqa.store.ledger.segment_rows import Segment, redundant, remove_redundant
from agiqa.store.ledger.segments import SEGMENTS, rows_of
from agiqa.store.ledger.shelf import DESCRIPTION, Shelf, find_shelves, read_description, strangers
from agiqa.store.packs.pack import FORMATS, read_pack_metadata

SHELF, PACK = "shelf", "pack"


@dataclass(frozen=True)
class RunStores:
    """One run: what it read."""

    folder: Path
    dataset: str
    stores: tuple[Mapping[str, Fingerprint], ...]  # fingerprints by their digests, store by store


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
            stores = tuple(
                {digest(fingerprint): fingerprint for fingerprint in store["fingerprints"]}
                for store in tree["stores"].values()
                if isinstance(store, Mapping) and "fingerprints" in store
            )
            runs.append(RunStores(path.parent, str(tree["dataset"]), stores))
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
        and any(store and store.keys() <= digests for store in run.stores)
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


def is_pack(path: Path) -> bool:
    """Whether a store is a pack by its name; else it is a shelf."""
    return path.suffix in FORMATS


def choose_store(text: str, ledger: Path) -> Path:
    """The path of the store that `text` names; of a pack's URL, that of a copy.

    AgiqaError where none is, or several shelves' names or digests begin so.
    """
    path = local_copy(text)
    if text and path.exists():
        if is_pack(path) or (path / DESCRIPTION).exists() or (path / SEGMENTS).exists():
            return path
        raise AgiqaError(
            f"{text}: expected a pack named *{' or *'.join(FORMATS)} or a shelf's folder, found "
            "neither; `agiqa cache ls` lists the stores"
        )
    if "/" in text or is_pack(path) or not text:
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
    return shelves[0]


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
    path: Path, caches: Sequence[Path], runs: Sequence[Path]
) -> tuple[Store, dict[str, Any]]:
    """The store with its users, and what only its kind has: segments, or layout and left out.

    AgiqaError where it is foreign or damaged.
    """
    all_runs, _ = find_runs(runs)
    if is_pack(path):
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


@dataclass(frozen=True)
class Orphan:
    """Something that can go: a file, or a folder with all that is in it."""

    path: Path
    why: str
    size: int  # bytes
    remove: Callable[[], None] = field(compare=False, repr=False)
    """AgiqaError where it holds something by now, or is being written; then it stays."""


def plan(
    ledger: Path,
    caches: Sequence[Path],
    runs: Sequence[Path],
    unused: bool = False,
    older_than: float = 0.0,
) -> tuple[list[Orphan], list[str]]:
    """List what can go, in the order of its removal; and in words what is passed over, and why.

    Nothing is changed. With `unused` shelves can go, too, that nothing in `caches` and `runs` uses
    and nobody wrote to for `older_than` seconds. AgiqaError where a pack or a run there cannot be
    read then, so that nobody knows what it uses.
    """
    known, unreadable = find_runs(runs)
    shelves, packs = survey(ledger, caches, known)
    if unused:
        _require_users(packs, unreadable, [*caches, *runs])
    read = {digest for run in known for store in run.stores for digest in store}
    inside = [path for cache in caches for path in sorted(cache.glob("[!.]*")) if path.is_dir()]
    orphans = [orphan for folder in (ledger, *caches, *inside) for orphan in leftovers(folder)]
    whole_shelves: list[Orphan] = []
    kept: list[str] = []
    for shelf in shelves:
        if shelf.problem:
            kept.append(f"{shelf.name}: {shelf.problem}")
            continue
        inner_orphans, busy = orphans_of_shelf(shelf.path)
        is_free = unused and not shelf.users and read.isdisjoint(shelf.digests)
        why = _why(shelf, is_free, older_than)
        if busy or not why:
            orphans += inner_orphans
            kept += busy
        elif foreign := strangers(shelf.path):  # they must not go with it
            problem = f"expected files of agiqa alone, found {foreign[0].name}; move it away"
            kept.append(f"{shelf.path}: {problem}")
        else:
            remove = partial(remove_shelf, shelf.path)
            whole_shelves.append(Orphan(shelf.path, why, shelf.size, remove))
    return orphans + whole_shelves, kept


def _why(shelf: Store, unused: bool, older_than: float) -> str:
    """Why a whole shelf can go; "" where it stays."""
    age = time.time() - shelf.written
    if not shelf.rows:
        return "shelf without a row" if age > STALE_SECONDS else ""
    return f"unused shelf of {shelf.rows} rows" if unused and age >= older_than else ""


def carry_out(planned: list[Orphan], again: list[Orphan]) -> tuple[list[Orphan], list[str]]:
    """Remove what was planned twice; what was removed, and what was not, in words.

    `again` is planned right before: what somebody began to use meanwhile is in it no more.
    """
    now = {orphan.path: orphan for orphan in again}
    removed, refused = list[Orphan](), list[str]()
    for orphan in planned:
        if orphan.path not in now:
            refused.append(f"{orphan.path}: in use now; kept")
            continue
        try:
            now[orphan.path].remove()
            removed.append(orphan)
        except AgiqaError as error:
            refused.append(str(error))
    return removed, refused


def orphans_of_shelf(folder: Path) -> tuple[list[Orphan], list[str]]:
    """What can go in the shelf in `folder`; and why it is passed over, in words.

    AgiqaError where the shelf is damaged: then nothing in it is touched.
    """
    shelf = Shelf.at(folder)
    shelf.rows.refresh()
    if writer := writer_of(folder):
        return [], [f"{folder}: being written by {writer}"]
    orphans = leftovers(shelf.files.folder, shelf=folder)
    for segment in redundant(shelf.rows):
        path, remove = shelf.files.folder / segment.name, partial(_remove_segment, shelf, segment)
        orphans.append(Orphan(path, "segment whose rows lie in others", size_of(path), remove))
    return orphans, []


def _remove_segment(shelf: Shelf, segment: Segment) -> None:
    with sole_writer(shelf.folder):
        if not remove_redundant(shelf.rows, segment):
            raise AgiqaError(
                f"{shelf.files.folder / segment.name}: expected its rows whole in greater "
                "segments, found damage there; kept: run `agiqa cache verify --repair`"
            )


def leftovers(folder: Path, shelf: Path | None = None) -> list[Orphan]:
    """Hidden .partial files and folders in `folder` that killed processes left an hour ago or more.

    Such a name is of something that was never moved into its place.
    """
    orphans = []
    with disk_errors("read", folder):
        for path in sorted(folder.glob(f".*{PARTIAL}")):
            if time.time() - path.lstat().st_mtime > STALE_SECONDS:
                remove = partial(_remove_leftover, path, shelf)
                orphans.append(Orphan(path, "left by a stopped process", size_of(path), remove))
    return orphans


def _remove_leftover(path: Path, shelf: Path | None) -> None:
    with sole_writer(shelf) if shelf else nullcontext(), disk_errors("remove", path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def remove_shelf(folder: Path) -> None:
    """Remove a whole shelf; LockedError where it is being written, and then it stays whole.

    It vanishes at once, under a hidden name, so that a stop leaves no half of it; what is left
    then is one of the `leftovers`.
    """
    aside = folder.with_name(f".{folder.name}.removed{PARTIAL}")
    with sole_writer(folder), disk_errors("remove", folder):
        if aside.exists():
            shutil.rmtree(aside)
        folder.rename(aside)
        sync_folder(folder.parent)
    with disk_errors("remove", aside):
        shutil.rmtree(aside)


def _require_users(packs: Sequence[Store], unreadable: Sequence[Path], folders: list[Path]) -> None:
    """AgiqaError unless all that may use a shelf can be looked at."""
    bad = [pack.path for pack in packs if pack.problem] + list(unreadable)
    if bad:
        raise AgiqaError(
            f"{bad[0]}: cannot be read, so nobody knows which shelves it uses ({len(bad)} such); "
            "repair or remove it before --unused"
        )
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise AgiqaError(
            f"{missing[0]}: no such folder, so nothing in it is seen to use a shelf; run --unused "
            "where your project is, or name its folders by --cache and --runs"
        )
