"""What can be freed, and freeing it: `agiqa cache gc`.

What holds no valid row may always go. A shelf with rows cost somebody's GPU; it goes only where
it was asked for by `unused`, nothing in sight uses it, and nobody has written to it for long.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agiqa.core.errors import AgiqaError
from agiqa.store.durable import STALE_SECONDS
from agiqa.store.ledger.shelf_check import (
    Orphan,
    leftovers,
    orphans_of_shelf,
    remove_leftovers,
    remove_orphans,
    remove_shelf,
    require_no_stranger,
)
from agiqa.store.upkeep.stores import Store, survey
from agiqa.store.upkeep.users import find_runs


@dataclass
class Plan:
    """What would go."""

    orphans: dict[Path, list[Orphan]] = field(default_factory=dict)  # by shelf
    leftovers: list[Orphan] = field(default_factory=list)
    shelves: list[Orphan] = field(default_factory=list)  # whole ones
    kept: list[str] = field(default_factory=list)  # what is passed over, and why

    def all(self) -> list[Orphan]:
        """Everything, in the order in which it is removed."""
        return [*self.leftovers, *(each for some in self.orphans.values() for each in some),
                *self.shelves]  # fmt: skip


def plan(
    ledger: Path,
    caches: Sequence[Path],
    runs: Sequence[Path],
    unused: bool = False,
    older_than: float = 0.0,
) -> Plan:
    """List what can go. Nothing is changed.

    Args:
        ledger: the ledger's folder.
        caches: folders of packs; what they hold keeps its shelves.
        runs: folders of runs; what they read keeps its shelves.
        unused: whether shelves that no pack and no run uses go, too.
        older_than: seconds since the last row of such a shelf was written.

    Raises:
        AgiqaError: `unused`, but a pack or a run cannot be read, so that nobody knows what it uses.
    """
    found, unreadable = find_runs(runs)
    shelves, packs = survey(ledger, caches, found)
    if unused:
        _require_readable(packs, unreadable)
        _require_folders([*caches, *runs])
    read = {digest for run in found for store in run.stores for digest in store}
    result = Plan()
    folders = [ledger, *caches, *(path for each in caches for path in _folders(each))]
    result.leftovers = [each for folder in folders for each in leftovers(folder)]
    for shelf in shelves:
        if shelf.problem:
            result.kept.append(f"{shelf.name}: {shelf.problem}")
            continue
        orphans, busy = orphans_of_shelf(shelf.path)
        result.kept += busy
        age = time.time() - shelf.written
        used = bool(shelf.users) or bool(read.intersection(shelf.digests))
        why = ""
        if not shelf.rows and age > STALE_SECONDS:
            why = "shelf without a row"
        elif unused and not used and shelf.rows and age >= older_than:
            why = f"unused shelf of {shelf.rows} rows"
        if not why or busy:
            if orphans:
                result.orphans[shelf.path] = orphans
            continue
        try:
            require_no_stranger(shelf.path)
        except AgiqaError as error:
            result.kept.append(str(error))
            continue
        result.shelves.append(Orphan(shelf.path, why, shelf.size))
    return result


def carry_out(planned: Plan, again: Plan) -> tuple[list[Orphan], list[str]]:
    """Remove what is in both plans; what was removed, and what was not, in words.

    `again` is made right before: what somebody began to use meanwhile is in it no more.
    """
    sure = {each.path for each in again.all()}
    removed: list[Orphan] = []
    refused = [f"{each.path}: in use now; kept" for each in planned.all() if each.path not in sure]
    for folder, orphans in [(None, planned.leftovers), *planned.orphans.items()]:
        chosen = [each for each in orphans if each.path in sure]
        try:
            removed += remove_orphans(folder, chosen) if folder else remove_leftovers(chosen)
        except AgiqaError as error:
            refused.append(str(error))
    for each in planned.shelves:
        try:
            if each.path in sure:
                remove_shelf(each.path)
                removed.append(each)
        except AgiqaError as error:
            refused.append(str(error))
    return removed, refused


def _folders(cache: Path) -> list[Path]:
    """Data sets' folders."""
    return [p for p in sorted(cache.glob("*")) if p.is_dir() and not p.name.startswith(".")]


def _require_readable(packs: Sequence[Store], runs: Sequence[Path]) -> None:
    bad = [str(pack.path) for pack in packs if pack.problem] + [str(path) for path in runs]
    if bad:
        raise AgiqaError(
            f"{bad[0]}: cannot be read, so nobody knows which shelves it uses ({len(bad)} such); "
            "repair or remove it before --unused"
        )


def _require_folders(folders: Sequence[Path]) -> None:
    for folder in folders:
        if not folder.is_dir():
            raise AgiqaError(
                f"{folder}: no such folder, so nothing in it is seen to use a shelf; run --unused "
                "where your project is, or name its folders by --cache and --runs"
            )
