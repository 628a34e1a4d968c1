"""What can be freed, and freeing it: `agiqa cache gc`.

What holds no valid row may always go. A shelf with rows cost somebody's GPU; it goes only where
it was asked for by `unused`, nothing in sight uses it, and nobody has written to it for long.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from agiqa.core.errors import AgiqaError
from agiqa.core.whole_files import PARTIAL, sync_folder
from agiqa.store.checks import strangers
from agiqa.store.durable import STALE_SECONDS, disk_errors
from agiqa.store.ledger.lock import sole_writer, writer_of
from agiqa.store.ledger.merging import redundant, remove_redundant
from agiqa.store.ledger.segment_rows import Segment
from agiqa.store.ledger.shelf import Shelf
from agiqa.store.own_files import size_of
from agiqa.store.upkeep.stores import Store, find_runs, survey


@dataclass(frozen=True)
class Orphan:
    """Something that can go: a file, or a folder with all that is in it."""

    path: Path
    why: str
    size: int  # bytes
    remove: Callable[[], None] = field(compare=False, repr=False)
    """AgiqaError where it holds something by now, or is being written; then it stays."""


@dataclass
class Plan:
    """What would go, in the order in which it is removed; what is passed over, and why."""

    orphans: list[Orphan]
    kept: list[str]


def plan(
    ledger: Path,
    caches: Sequence[Path],
    runs: Sequence[Path],
    unused: bool = False,
    older_than: float = 0.0,
) -> Plan:
    """List what can go; nothing is changed.

    With `unused` that is shelves, too, that nothing in `caches` and `runs` uses and nobody wrote
    to for `older_than` seconds. AgiqaError where a pack or a run there cannot be read then, so that
    nobody knows what it uses.
    """
    known, unreadable = find_runs(runs)
    shelves, packs = survey(ledger, caches, known)
    if unused:
        _require_users(packs, unreadable, [*caches, *runs])
    read = {digest for run in known for store in run.stores for digest in store}
    inside = [path for cache in caches for path in sorted(cache.glob("[!.]*")) if path.is_dir()]
    folders = [ledger, *caches, *inside]
    planned = Plan([orphan for folder in folders for orphan in leftovers(folder)], [])
    whole_shelves = []
    for shelf in shelves:
        if shelf.problem:
            planned.kept.append(f"{shelf.name}: {shelf.problem}")
            continue
        orphans, busy = orphans_of_shelf(shelf.path)
        used = bool(shelf.users) or bool(read.intersection(shelf.digests))
        why = _why(shelf, unused and not used, older_than)
        if busy or not why:
            planned.orphans += orphans
            planned.kept += busy
        elif foreign := strangers(shelf.path):  # they must not go with it
            planned.kept.append(
                f"{shelf.path}: expected files of agiqa alone, found {foreign[0].name}; "
                "move it away"
            )
        else:
            remove = partial(remove_shelf, shelf.path)
            whole_shelves.append(Orphan(shelf.path, why, shelf.size, remove))
    planned.orphans += whole_shelves
    return planned


def _why(shelf: Store, unused: bool, older_than: float) -> str:
    """Why a whole shelf can go; "" where it stays."""
    age = time.time() - shelf.written
    if not shelf.rows:
        return "shelf without a row" if age > STALE_SECONDS else ""
    return f"unused shelf of {shelf.rows} rows" if unused and age >= older_than else ""


def carry_out(planned: Plan, again: Plan) -> tuple[list[Orphan], list[str]]:
    """Remove what is in both plans; what was removed, and what was not, in words.

    `again` is made right before: what somebody began to use meanwhile is in it no more.
    """
    now = {orphan.path: orphan for orphan in again.orphans}
    removed: list[Orphan] = []
    refused: list[str] = []
    for orphan in planned.orphans:
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
